//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/need"
)

// TestMain lets the test binary be the roles of Limpet.
func TestMain(m *testing.M) {
	if os.Getenv(roleOf) != "" {
		if err := act(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	leaktest.Main(m)
}

// tiny are the flags of a run that is over at once.
var tiny = []string{
	"-rounds", "1", "-time", "10ms", "-least", "20", "-rate", "1000", "-nodes", "2", "-publishers", "2",
	"-members", "20", "-broadcasts", "2", "-settle", "0s",
}

// Each peer is measured in all cases, and nothing is lost.
func TestRun(t *testing.T) {
	for _, tt := range []struct {
		peers string
		needs func(t *testing.T)
	}{
		{"Limpet Redis,Limpet Streams,Limpet hub,Limpet Socket.IO", func(*testing.T) {}},
		{"Socket.IO,Socket.IO streams", func(t *testing.T) { need.Modules(t, "../interop/testdata/v4") }},
		{"centrifuge,centrifuge history", func(t *testing.T) { need.Module(t, "centrifuge") }},
	} {
		t.Run(tt.peers, func(t *testing.T) {
			need.Redis(t)
			tt.needs(t)
			var tables bytes.Buffer
			if err := run(t.Context(), &tables, append([]string{"-peers", tt.peers}, tiny...)); err != nil {
				t.Fatalf("%v\n%s", err, &tables)
			}
			rows := 0
			for line := range strings.Lines(tables.String()) {
				cells := strings.Split(strings.Trim(line, "|\n"), "|")
				if !strings.HasPrefix(cells[0], " 64 B") && !strings.HasPrefix(cells[0], " 1024 B") {
					continue
				}
				rows++
				for _, cell := range cells[1:] {
					number, _, _ := strings.Cut(strings.TrimSpace(cell), " ")
					if n, err := strconv.ParseFloat(number, 64); err != nil || n < 0 {
						t.Errorf("%q has a cell that is no figure", line)
					}
				}
			}
			// Processor time of three in ten cases, throughput of eight, two latencies of two, two
			// figures of two sizes of a broadcast.
			if want := 3*10 + 8 + 2*2 + 2*2; rows != want {
				t.Errorf("%d rows, want %d:\n%s", rows, want, &tables)
			}
		})
	}
}

// What can't work is said before anything is measured.
func TestWrongArguments(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"peer", []string{"-peers", "Limpet hub,NATS"}, `no peer "NATS"`},
		{"number", []string{"-rounds", "0"}, "wrong arguments"},
		{"several nodes", []string{"-nodes", "1"}, "wrong arguments"},
		{"rest", []string{"hub"}, "wrong arguments"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(t.Context(), io.Discard, tt.args); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// A peer that fails is said to have, and costs the others nothing.
func TestFailure(t *testing.T) {
	need.Redis(t)
	b := &bench{time: 1, least: 20, rate: 1000, sizes: []int{64}, nodes: 1, many: 2, dir: t.TempDir()}
	all, _, err := peers(t.Context(), b.dir, nil, "Limpet Redis,Limpet Streams")
	if err != nil {
		t.Fatal(err)
	}
	r := &report{bench: b, rounds: 1}
	c := &crew{peer: all[0]}
	defer c.stop()
	if err := c.start(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	c.subscribers[one][0].total-- // as if a message had come twice
	if _, err := b.measure(c, b.loads()[0], false); err == nil || !strings.Contains(err.Error(), "got 21 messages of 20") {
		t.Errorf("a message that comes twice: %v", err)
	}
	c.redis.Stop()
	if _, err := b.measure(c, b.loads()[0], false); err == nil {
		t.Error("measured without Redis")
	}
	r.failures = []string{"it broke"}
	var tables bytes.Buffer
	if err := r.markdown(&tables, all); err == nil || !strings.Contains(tables.String(), "it broke") {
		t.Errorf("got %v\n%s", err, &tables)
	}
}

// An interrupt ends a run and its processes.
func TestInterrupt(t *testing.T) {
	need.Redis(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if err := run(ctx, io.Discard, append([]string{"-peers", "Limpet Redis"}, tiny...)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
