"""The conductor: packer, replicator, auditor, evictor, treasurer. Start: `main.run_agent`."""
