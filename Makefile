# Everything that people and CI run. The SIMD experiment gives the fast kernels;
# without it everything still builds and runs on the portable ones.
export GOEXPERIMENT ?= simd
GO ?= go
BIN := bin
LDFLAGS := -s -w
# Packages with goroutines run under the race detector; the pure ones do not
# need it and have most of the computing.
RACE := ./durable/... ./p2p/... ./store/... ./api/... ./poet/... ./node/... ./txpool ./hare ./activation
PURE := ./codec ./types ./signing ./merkle ./posw/... ./post ./eligibility ./beacon ./vm ./mesh ./preset ./house ./cmd/...
FUZZTIME ?= 15s

.PHONY: build testnet test nightly lint fuzz bench generate clean

build: ## both binaries into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

testnet: build ## a local testnet in the foreground; Ctrl-C ends it
	$(BIN)/tweedle testnet up $(ARGS)

test: build ## everything, under ten minutes on two cores
	$(GO) vet ./...
	$(GO) test -timeout 5m $(PURE)
	CGO_ENABLED=1 $(GO) test -race -timeout 8m $(RACE)
	$(GO) test -timeout 8m -count=1 ./testnet/...
	cd compat && $(GO) test -timeout 8m ./...

nightly: build ## the long campaigns
	TWEEDLE_NIGHTLY=1 CGO_ENABLED=1 $(GO) test -race -timeout 170m ./...

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./posw/...
	cd compat && $(GO) tool staticcheck -checks inherit ../... || true

fuzz: ## every fuzz target for FUZZTIME
	./scripts/fuzz.sh $(FUZZTIME)

bench: ## side by side with the reference, and our own benchmarks
	cd compat && $(GO) run ./cmd/bench

clean:
	rm -rf $(BIN)
