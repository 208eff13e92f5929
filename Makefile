# The commands that are typed most. Everything here also works by hand.

.PHONY: build test race lint fuzz bench demo ci

build:            ## the service, as bin/millstream
	go build -o bin/millstream ./cmd/millstream

test:             ## every test that needs nothing but Go
	go test ./...

race:             ## the same with the race detector
	go test -race ./...

lint:             ## golangci-lint, at the version that .ci/run installs
	golangci-lint run

fuzz:             ## a minute of each fuzz target
	git grep -n '^func Fuzz' | sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz[A-Za-z]*).*|./\1 \2|' | while read dir name; do \
		go test $$dir -run '^$$' -fuzz "^$$name$$" -fuzztime 1m || exit 1; done

bench:            ## the engine against a bare loop
	go run ./bench engine --json

demo:             ## see it survive
	go run ./cmd/millstream demo

ci:               ## what continuous integration runs
	bash .ci/run
