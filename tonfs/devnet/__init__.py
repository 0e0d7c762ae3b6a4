"""A local TON: real contract code in the real TVM behind a real lite server, a DHT, and breakable providers.

The chain core needs no network: `ledger.Ledger` (messages in, blocks out, every coin accounted for) on
`store.LedgerStore`, seen by its doors as `chain_api.DevnetChain`. Below it: `emulator` (TVM), `world` (accounts and
queue), `blocks`, `proofs`, `answers` (lite server answers with their proofs), `accounts_dict`, `cells`, `multiboc`.
Doors and processes: `liteserver`, `ticker`, `daemon`, `handlers`, `supervisor`, `config_file`.

Nothing is imported here, so that the command line starts fast.
"""
