# Everything that people and CI run. The kernels are generated assembler: a plain
# "go build" or "go install" gives the same programs.
GO ?= go
BIN := bin
LDFLAGS := -s -w
# Packages with goroutines run under the race detector; the others have most of
# the computing and do not need it. The node runs both ways: its whole networks in
# virtual time without, because the race runtime of Go 1.26 crashes now and then
# in them (golang/go#78156), the rest with it.
RACE := ./base/... ./edges/... ./services/...
PLAIN := ./values/... ./proofs/... ./protocol/... ./archtest ./cmd/... ./services/node
FUZZTIME ?= 15s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build testnet test compile test-packages test-network test-arm64 nightly lint fuzz bench generate clean

build: ## both programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

testnet: build ## a local testnet in the foreground; Ctrl-C ends it
	$(BIN)/tweedle testnet up $(ARGS)

test: compile ## everything, under ten minutes on two cores once its parts are compiled
	$(MAKE) --no-print-directory --output-sync=target -j2 test-packages test-network

# What tests build while they run is built before, so that a new machine does
# not spend their time on it.
compile:
	$(GO) build -o /dev/null ./cmd/tweedle
	cd compat && $(GO) vet ./... && $(GO) tool -n grpcurl >/dev/null && $(GO) tool -n poet >/dev/null

test-packages: ## each package by itself
	$(GO) vet ./...
	$(GO) test -timeout 5m $(PLAIN)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 9m $(RACE)

test-network: ## the real programs, and outside judges; they mostly wait for layers
	$(GO) test -count=1 -timeout 9m -run '^TestTestnet' ./services/testnet
	cd compat && $(GO) test -count=1 -timeout 9m -p 1 ./...

test-arm64: ## the kernels for arm64, emulated (Debian: qemu-user-static)
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -count=1 -timeout 55m -exec 'qemu-aarch64-static -cpu max' \
		-run 'Kernel|Reference|Resume|Verify' ./proofs/posw

nightly: build ## the long campaigns; hours
	$(GO) test -timeout 5m $(PLAIN)
	TWEEDLE_NIGHTLY=1 CGO_ENABLED=1 $(GO) test -race -timeout 170m $(RACE) ./proofs/posw/...
	cd compat && TWEEDLE_NIGHTLY=1 $(GO) test -count=1 -timeout 120m -p 1 ./...

lint: ## formatting, vet (also for arm64), staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "run gofmt -w on:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./proofs/posw/...
	$(GO) run $(STATICCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME
	./scripts/fuzz.sh $(FUZZTIME)

bench: ## side by side with the reference; the last line is JSON
	cd compat && $(GO) run ./cmd/bench

generate: ## what is written by programs: stubs and assembler
	$(GO) generate ./edges/api/... ./proofs/posw/...

clean:
	rm -rf $(BIN)
