# Holdfast. `make help` lists what there is.
.DEFAULT_GOAL := help

GO      ?= go
TOOL    := $(GO) tool -modfile=tools/go.mod
BIN     := build/bin
ARGS    ?=
FUZZTIME ?= 10s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install the Debian packages that are missing
	@./scripts/setup.sh

.PHONY: build
build: ## build holdfast and holdfastd into build/bin
	@mkdir -p $(BIN)
	$(GO) build -ldflags='-s -w' -o $(BIN)/ ./cmd/holdfast ./cmd/holdfastd

.PHONY: run
run: setup ## bring up three virtual devices and a daemon, walk through the main job (ARGS=--once stops then)
	@./scripts/run.sh $(ARGS)

.PHONY: test
test: setup ## the whole test suite, on real parts, nothing skipped
	@test -d "$${HOLDFAST_VECTORS:-../shared/vectors}" || echo "published test vectors are not in ../shared/vectors or \
	$$HOLDFAST_VECTORS: the tests restate a few of them and leave the rest out"
	$(GO) test -timeout 20m ./...

.PHONY: race
race: setup ## the test suite under the race detector
	$(GO) test -race -timeout 40m ./...

.PHONY: conform
conform: setup ## the conformance suite on every backend; prints the table and writes it into README.md
	@rm -rf build/conform && mkdir -p build/conform
	HOLDFAST_CONFORM_DIR=$(CURDIR)/build/conform $(GO) test -count=1 -timeout 20m -run '^TestConformance' ./...
	$(GO) run ./internal/cmd/conformtable -dir build/conform -file README.md

.PHONY: bench
bench: setup build ## measure against the raw devices; prints the table and writes build/bench.json
	$(GO) run ./softhsm-test/cmd/bench $(ARGS)

.PHONY: chaos
chaos: setup build ## kill the daemon at random moments (ARGS='-kills 200')
	$(GO) run ./softhsm-test/cmd/chaos $(ARGS)

.PHONY: fuzz
fuzz: setup ## each fuzz target for FUZZTIME (10s)
	@./scripts/fuzz.sh $(FUZZTIME)

.PHONY: fmt
fmt: ## format
	gofmt -w $$(git ls-files '*.go')

.PHONY: generate
generate: ## make the protobuf code and the OpenAPI file (needs protobuf-compiler, libprotobuf-dev)
	./api/generate.sh

.PHONY: lint
lint: ## staticcheck and errcheck
	$(TOOL) staticcheck ./...
	$(TOOL) errcheck -ignoretests -exclude tools/errcheck.txt ./...

.PHONY: check
check: setup ## formatting, vet, linters, go fix, import test, build without cgo
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "run make fmt:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(MAKE) --no-print-directory lint
	@diff=$$($(GO) fix -diff ./... 2>&1) || true; test -z "$$diff" || { echo "$$diff"; echo "run go fix ./..."; exit 1; }
	$(GO) test ./internal/arch
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/holdfastd
	@echo "check: ok"

.PHONY: clean
clean: ## remove what was built
	rm -rf build
