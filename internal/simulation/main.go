// Simulation asks how the balancer behaves at a size that no test machine has, by default
// with 1,000 backends and 10 million sessions:
//
//	go run ./internal/simulation -svg internal/simulation/results/simulation.svg | tee internal/simulation/results/README.md
//
// is how its results in this repository are made, in a few minutes. Time in it is virtual,
// and chance is seeded, so that each run gives the same figures, but for the pickers, which
// draw from the runtime's random numbers.
//
// Limpet's side is the code that serves requests: pools, pickers, rendezvous hashing, turns.
// What others do is written down in hashes.go after their documentation.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	var w world
	flag.IntVar(&w.backends, "backends", 1000, "number of `backends`, from 20 to 65,000")
	flag.IntVar(&w.sessions, "sessions", 10_000_000, "number of `sessions`, at least 10 for each backend")
	svg := flag.String("svg", "", "`file` to write a chart to")
	flag.Parse()
	if err := run(w, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "simulation:", err)
		os.Exit(1)
	}
}

func run(w world, svg string) error {
	if w.backends < 20 || w.backends > 65_000 || w.sessions < 10*w.backends {
		return fmt.Errorf("%d backends and %d sessions: want 20 to 65,000 backends, and 10 sessions for each", w.backends, w.sessions)
	}
	r := simulate(w)
	os.Stdout.WriteString(r.markdown())
	if svg == "" {
		return nil
	}
	return os.WriteFile(svg, r.chart(), 0o644)
}

// A world is the size of what is simulated.
type world struct {
	backends, sessions int
}

// A report has the results of all questions.
type report struct {
	world
	loss    []lossResult
	spread  []spreadResult
	crowd   []crowdResult
	deploys []deployResult
}

func simulate(w world) *report {
	return &report{world: w, loss: w.lose(), spread: w.spread(), crowd: w.crowd(), deploys: w.deploy()}
}
