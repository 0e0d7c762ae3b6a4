module tonfs/foreign

go 1.25

require (
	atomicgo.dev/cursor v0.2.0 // indirect
	atomicgo.dev/keyboard v0.2.9 // indirect
	atomicgo.dev/schedule v0.1.0 // indirect
	filippo.io/edwards25519 v1.1.0 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/containerd/console v1.0.5 // indirect
	github.com/golang/snappy v1.0.0 // indirect
	github.com/gookit/color v1.5.4 // indirect
	github.com/kevinms/leakybucket-go v0.0.0-20200115003610-082473db97ca // indirect
	github.com/lithammer/fuzzysearch v1.1.8 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.22.0 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.65.0 // indirect
	github.com/prometheus/procfs v0.17.0 // indirect
	github.com/pterm/pterm v0.12.81 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/rs/zerolog v1.34.0 // indirect
	github.com/syndtr/goleveldb v1.0.0 // indirect
	github.com/ton-blockchain/adnl-tunnel v0.1.8 // indirect
	github.com/xo/terminfo v0.0.0-20220910002029-abceb7e1c41e // indirect
	github.com/xssnick/raptorq v1.3.0 // indirect
	github.com/xssnick/ton-payment-network v1.2.3 // indirect
	github.com/xssnick/tonutils-go v1.16.0 // indirect
	github.com/xssnick/tonutils-storage v1.4.1 // indirect
	github.com/xssnick/tonutils-storage-provider v0.3.13 // indirect
	golang.org/x/crypto v0.46.0 // indirect
	golang.org/x/sys v0.39.0 // indirect
	golang.org/x/term v0.38.0 // indirect
	golang.org/x/text v0.32.0 // indirect
	google.golang.org/protobuf v1.36.6 // indirect
)

tool (
	github.com/xssnick/tonutils-storage-provider/cmd
	github.com/xssnick/tonutils-storage/cli
)
