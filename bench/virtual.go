package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
)

// simulationVariable hands a simulation, and its plan, to the process that runs it: Go has virtual time in
// tests only, so that process is the binary of one test.
const simulationVariable = "BENCH_SIMULATION"

// simulationCall is what a process is asked to run.
type simulationCall struct {
	Name string
	Plan json.RawMessage
}

const (
	simulationFleet = "fleet"
	simulationSinks = "sinks"
)

// elsewhere runs a simulation in virtual time, in another process, and reads its result.
func elsewhere(ctx context.Context, name string, plan, result any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	call, err := json.Marshal(simulationCall{name, raw})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), simulationVariable+"="+string(call))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the simulation: %w", err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n")) // the test says PASS behind it
	if err := json.Unmarshal(line, result); err != nil {
		return fmt.Errorf("the simulation says %.200q: %w", out, err)
	}
	return nil
}

// simulate is that process.
func simulate(text string) {
	os.Args = os.Args[:1]
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "simulation", F: func(t *testing.T) {
		var call simulationCall
		if err := json.Unmarshal([]byte(text), &call); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			result, err := simulatedCall(t.Context(), call)
			line, _ := json.Marshal(result) // plain fields always marshal
			fmt.Println(string(line))
			if err != nil {
				fmt.Fprintln(os.Stderr, string(line), err)
				t.Fail()
			}
		})
	}}}, nil, nil)
}

func simulatedCall(ctx context.Context, call simulationCall) (any, error) {
	switch call.Name {
	case simulationFleet:
		var p fleetPlan
		if err := json.Unmarshal(call.Plan, &p); err != nil {
			return nil, err
		}
		return simulated(p)
	case simulationSinks:
		var p sinkPlan
		if err := json.Unmarshal(call.Plan, &p); err != nil {
			return nil, err
		}
		return simulateSink(ctx, p)
	}
	return nil, fmt.Errorf("no simulation %q", call.Name)
}
