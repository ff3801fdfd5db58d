# Everything that people and CI run. The kernels are generated assembler: a plain
# "go build" or "go install" gives the same programs.
GO ?= go
BIN := bin
LDFLAGS := -s -w
# Packages with goroutines run under the race detector; the others have most of
# the computing and do not need it; the node runs both ways, its whole networks in virtual
# time without. -cpu 1, because the race runtime of Go 1.26 has one context for all timers
# of a synctest bubble and crashes when two threads run some at once (golang/go#78156);
# goroutines are still preempted.
RACE := -race -cpu 1 ./base/... ./edges/... ./services/...
PLAIN := ./values/... ./proofs/... ./protocol/... ./sim/... ./archtest ./cmd/... ./services/node
FUZZTIME ?= 2m
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build watch testnet test compile test-packages test-network test-watch page-test test-arm64 test-intel nightly lint fuzz fuzz-short bench generate clean

build: ## the program into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

watch: ## the watch, a module of its own, into bin/
	cd watch && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o ../$(BIN)/ ./cmd/...

testnet: build ## a local testnet in the foreground; Ctrl-C ends it
	$(BIN)/tweedle testnet up $(ARGS)

test: compile ## everything, some twenty minutes on two cores once its parts are compiled
	$(MAKE) --no-print-directory --output-sync=target -j2 test-packages test-network

# What tests build while they run is built before, so that a new machine does
# not spend their time on it.
compile:
	$(GO) build -o /dev/null ./cmd/tweedle
	cd watch && $(GO) vet ./...
	cd compat && $(GO) vet ./... && $(GO) tool -n grpcurl >/dev/null && $(GO) tool -n poet >/dev/null

test-packages: ## each package by itself
	$(GO) vet ./...
	$(GO) test -timeout 20m $(PLAIN)
	CGO_ENABLED=1 $(GO) test -short -timeout 9m $(RACE)
	$(GO) test -timeout 4m -run '^TestTheMemory' ./services/poet/server

test-network: ## the real programs, and outside judges; they mostly wait for layers
	$(GO) test -count=1 -timeout 9m -run '^TestTestnet' ./services/testnet
	cd compat && $(GO) test -count=1 -timeout 9m -p 1 ./...
	$(MAKE) --no-print-directory test-watch

test-watch: ## the watch: its rules, its supervisor, its processes
	cd watch && $(GO) test -timeout 9m ./...

page-test: ## the page in a browser (Debian: chromium, nodejs, npm); says so and ends well where there is none
	@./scripts/page-test.sh

# What is left out starts itself, which needs qemu in the kernel of the machine.
test-arm64: ## the kernels for arm64, emulated (Debian: qemu-user-static)
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -count=1 -timeout 55m -exec 'qemu-aarch64-static -cpu max' \
		-run 'Kernel|Reference|Resume|Verify' ./proofs/posw
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -short -count=1 -timeout 15m -exec 'qemu-aarch64-static -cpu max' \
		-skip '^TestInitIsResumedAfterKillOfTheProcess$$' ./proofs/post ./proofs/processor

test-intel: ## the kernels for Intel, emulated; VMLINUZ is a Linux kernel for PCs, see the script
	./scripts/emulate-intel.sh $(VMLINUZ)

# The campaigns, in parts that end within an hour each on two cores: those that
# measure, those that wait for clocks and processes, and those that compute. A test
# that grows with TWEEDLE_NIGHTLY belongs to a part: archtest holds it.
NIGHTLY_SIMULATOR := simulator-1 simulator-2 simulator-3 simulator-4 simulator-5 simulator-6 simulator-7 simulator-8 simulator-9 simulator-10 simulator-11 simulator-12 simulator-13 simulator-14 simulator-15 simulator-16
NIGHTLY_ALONE := flood clients filling catchup page resources crowd
NIGHTLY_WAITS := byzantine storms-1 storms-2 storms-3 storms-4 siege quiet watch runs sites outages newcomers backups network kills deliveries space drill drill-guards
NIGHTLY_WORKS := soak disks-1 disks-2 disks-3 disks-4 packages fuzz damage twins writes peers sessions handshakes memory machine guards floods beacon hare tortoise \
	$(NIGHTLY_SIMULATOR)
NIGHTLY := $(NIGHTLY_ALONE) -- $(NIGHTLY_WAITS) -- $(NIGHTLY_WORKS)
NIGHTLY_TEST = TWEEDLE_NIGHTLY=1 $(GO) test -v -count=1 -timeout 58m

nightly: build compile ## the long campaigns; hours, goes on where it was stopped. NIGHTLY="kills damage" runs some of them, one after another
	@MAKE='$(MAKE)' ./scripts/nightly.sh $(NIGHTLY)

.PHONY: $(addprefix nightly-,$(NIGHTLY_ALONE) $(NIGHTLY_WAITS) $(NIGHTLY_WORKS))
nightly-packages: # every test, under the race detector where there are goroutines
	$(GO) test -count=1 -timeout 20m $(PLAIN)
	CGO_ENABLED=1 $(GO) test -count=1 -timeout 38m $(RACE)
nightly-writes: # the PoET loses power, has no room and has a broken disk at each of its writes
	$(NIGHTLY_TEST) -run '^(TestPowerLossAtEveryWrite|TestEveryWrite.*|TestEveryFailedSync.*)$$' ./services/poet/rounds
$(addprefix nightly-disks-,1 2 3 4): nightly-disks-%: # the node's state.db and local.db lose power, have no room and have a broken disk at each operation
	TWEEDLE_DISK_PART=$* $(NIGHTLY_TEST) -run '^TestOneDiskErrorEndsTheNodeAndCostsNothing$$' ./services/node
nightly-damage: # bits flip in its files
	$(NIGHTLY_TEST) -run '^TestDamageIsFoundOrHarmless$$' ./services/poet/rounds
nightly-kills: # it is killed a thousand times
	$(NIGHTLY_TEST) -run '^TestKillAtRandomMoments$$' ./services/poet/rounds
nightly-deliveries: # and while it delivers
	$(NIGHTLY_TEST) -run '^TestKilledAtRandomMoments' ./services/poet/server
nightly-peers: # a peer is killed a thousand times, and is back at once
	$(NIGHTLY_TEST) -run '^TestAKilledNodeIsBackInSeconds$$' ./edges/p2p/virtual
nightly-sessions: # a million operations on the table of sessions at each of its sizes
	$(NIGHTLY_TEST) -run '^TestSessionsAgainstAList$$' ./edges/p2p
nightly-handshakes: # 20,000 real ones and 100,000 half open, at a node among others; delivery among fifty
	$(NIGHTLY_TEST) -run '^(TestAFloodOf(Handshakes|HalfOpenHandshakes)|TestMalformedGossipIsNotReadForLong|TestDelivery)$$' ./edges/p2p/virtual
nightly-soak: # thirty virtual days of churn among ten nodes
	$(NIGHTLY_TEST) -run '^TestASoakOfChurn$$' ./edges/p2p/virtual
nightly-machine: # seeds of its machine of rounds
	$(NIGHTLY_TEST) -run '^TestMachineUnderFaults$$' ./services/poet/rounds
$(addprefix nightly-,$(NIGHTLY_SIMULATOR)): nightly-simulator-%: # 1,250 seeds each of whole networks of cores, with adversaries
	TWEEDLE_SIM_PART=$* $(NIGHTLY_TEST) -run '^TestSeeds$$' ./sim
nightly-twins: # every scenario of twins among five others
	$(NIGHTLY_TEST) -run '^TestTwinScenariosAreCountedAndSampled$$' ./sim
nightly-beacon: # 2,500 seeds of each lie about the beacon, the worst of them by rounds, and who grinds it
	$(NIGHTLY_TEST) -run '^(TestAThirdOfTheWeightCannotSplitTheBeacon|TestRoundsAreWhatEndsADispute|TestNobodyChoosesAmongMoreThanAllowed)$$' ./protocol/beacon
nightly-hare: # 20,000 layers with liars of every kind, and 5,000 scenarios of twins
	$(NIGHTLY_TEST) -run '^(TestLessThanAThirdCannotSplitHare|TestMoreThanAThirdAndASlowNetworkAreSurvived|TestEveryLieInEveryWeather|TestTwinsCannotSplitHare)$$' ./protocol/hare
nightly-floods: # strangers send one core more of everything than it may keep, for hours of virtual time
	$(NIGHTLY_TEST) -run '^TestFloodsFillNoMoreThanTheLimits$$' ./sim
nightly-tortoise: # networks of tortoises that are split, with liars among them, and healed
	$(NIGHTLY_TEST) -run '^TestPartitionsHeal$$' ./protocol/tortoise
nightly-guards: # each guard of docs/attacks.md is taken out in turn, and its test must turn red
	$(NIGHTLY_TEST) -run '^TestEachGuardIsMissed$$' ./archtest
nightly-catchup: # an empty store joins a network of 2,000 layers
	$(NIGHTLY_TEST) -run '^TestCatchUpOfALongHistory$$' ./services/node
nightly-flood: # strangers send what they can to smeshers
	$(NIGHTLY_TEST) -run '^TestNoHonestSignatureIsLostInAFlood$$' ./services/node
nightly-clients: # a thousand clients scan what a node has
	$(NIGHTLY_TEST) -run '^TestScanningClientsDelayNoLayer$$' ./services/node
nightly-filling: # a space is filled beside a node that follows its network
	$(NIGHTLY_TEST) -run '^TestFillingASpaceDelaysNoLayer$$' ./services/node
nightly-memory: # of a round of 2^26 leaves
	$(NIGHTLY_TEST) -run '^TestMemory' ./proofs/posw
nightly-space: # a smesher that fills its space is killed
	$(NIGHTLY_TEST) -run '^TestInitIsResumedAfterKillOfTheProcess$$' ./proofs/post
nightly-crowd: # 100,000 handshakes at a node of a live network, from 65,536 addresses; as root
	$(NIGHTLY_TEST) -run '^TestAFloodOfHandshakesAtALiveNode$$' ./cmd/tweedle
nightly-siege: # clients of every kind against every listener of a node and a PoET
	$(NIGHTLY_TEST) -run '^TestClientsCannotBringTheDoorsDown$$' ./cmd/tweedle
nightly-fuzz: # every fuzz target
	$(MAKE) --no-print-directory fuzz-short
nightly-network: # the real programs, and outside judges
	$(MAKE) --no-print-directory test-network
nightly-outages: # all PoETs gone at four moments; one of two paused
	cd compat && $(NIGHTLY_TEST) -run '^(TestPoetsGoneAtAnyMoment|TestAPausedPoetCostsNothing)$$' ./network
nightly-newcomers: # the README's path from a clean clone; a smesher whose PoET hangs, lies, is gone
	cd compat && $(NIGHTLY_TEST) -run '^(TestTheREADMEsPath|TestASmesherIsToldOfItsPoET)$$' ./network
nightly-backups: # a PoET and a node under load are backed up and restored fifty times
	$(NIGHTLY_TEST) -run '^TestABackupUnderLoadOfA(Poet|Node)$$' ./cmd/tweedle
nightly-sites: # one identity in two network namespaces whose link is down at times; as root
	cd compat && $(NIGHTLY_TEST) -run '^TestOneIdentityInTwoSites$$' ./network
nightly-watch: # every fault that one machine can have raises its alert, and no other; and on Debian's Prometheus; as root
	cd watch && $(NIGHTLY_TEST) -run '^(TestEachFaultRaisesItsAlertAndNoOther|TestDebiansPrometheusRaisesTheSameAlerts|TestAFullDiskOfTheWatchIsTold|TestOfTwoWatchesOneTellsThatTheOtherIsGone)$$' ./cmd/tweedle-watch
nightly-quiet: # half an hour without a fault, and without an alert
	cd watch && $(NIGHTLY_TEST) -run '^TestAQuietTestnetRaisesNothing$$' ./cmd/tweedle-watch
nightly-page: # the page in a browser, its times too
	TWEEDLE_NIGHTLY=1 ./scripts/page-test.sh
nightly-resources: # what testnets of 3, 5, 10 and 20 nodes take of a machine
	cd compat && $(NIGHTLY_TEST) -run '^TestResourcesOfATestnet$$' ./network
nightly-drill: # every drill of `tweedle testnet drill`, in all its variants; with full disks as root
	$(NIGHTLY_TEST) -run '^TestEveryDrillHolds$$' ./services/testnet/drill
nightly-drill-guards: # the drill of the incident fails when one of its guards is taken away
	$(NIGHTLY_TEST) -run '^TestADrillFailsWithoutItsGuard$$' ./services/testnet/drill
nightly-byzantine: # ten nodes for six epochs, of which three lie
	$(NIGHTLY_TEST) -run '^TestAThirdOfTheWeightIsByzantine$$' ./cmd/tweedle
$(addprefix nightly-storms-,1 2 3 4): nightly-storms-%: # nodes and PoETs are killed, stopped and started at random for five minutes, five times each
	cd compat && TWEEDLE_STORM_PART=$* $(NIGHTLY_TEST) -run '^TestStormsPass$$' ./network
nightly-runs: # ten testnets of four epochs
	cd compat && $(NIGHTLY_TEST) -run '^TestTenRunsInARow$$' ./network

lint: ## formatting, vet (also for arm64), staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "run gofmt -w on:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./proofs/...
	$(GO) run $(STATICCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME (2m)
	./scripts/fuzz.sh $(FUZZTIME)

fuzz-short: ## every fuzz target for 15 s
	./scripts/fuzz.sh 15s

bench: ## side by side with the reference; the last line is JSON
	cd compat && $(GO) run ./cmd/bench

generate: ## what is written by programs: stubs, assembler, the list of metrics, of JSON, the table of files
	$(GO) generate ./edges/api/... ./proofs/posw/...
	$(GO) test -count=1 -run "^(TestMetricsAreDocumented|TestJSONIsDocumented|TestEachFileOfANodeAndAPoet)$$" ./cmd/tweedle -update

clean:
	rm -rf $(BIN)
