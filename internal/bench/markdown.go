//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// markdown prints the tables: a row for each case, a column for each gateway.
func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "# Results of internal/bench\n\n%s; medians of %d rounds of %v.\n", r.Machine, r.Rounds, r.Sizes.Time)
	if n := half(r.Rounds); n < r.Rounds {
		fmt.Fprintf(w, "What is about memory, and how Limpet scales, was measured %d times.\n", n)
	}
	if r.Pinned {
		fmt.Fprintln(w, "The gateway had one processor to itself, load and backends shared the others:",
			"where the gateway's wasn't busy, they were the limit of operations a second.")
	} else {
		fmt.Fprintln(w, "All shared one processor.")
	}
	fmt.Fprintln(w)
	for _, p := range r.Peers {
		switch {
		case p.Missing:
			fmt.Fprintf(w, "- %s is not installed\n", p.Name)
		case p.Version != "":
			fmt.Fprintf(w, "- %s: %s\n", p.Name, p.Version)
		}
	}
	fmt.Fprintln(w)
	for _, c := range r.cases {
		fmt.Fprintf(w, "- %s: %s\n", c.name, c.does)
	}
	r.table(w, "Processor time, µs an operation", func(m *result) (string, float64) {
		return fmt.Sprintf("%.1f", m.CPU), m.CPU
	}, func(c *scene) bool { return !strings.HasSuffix(c.name, "idle") })
	for _, c := range r.cases {
		if c.rests != nil {
			r.resting(w, c)
		}
	}
	busy := func(c *scene) bool { return c.rests == nil } // the others don't go as fast as they can
	r.table(w, "Operations a second (the gateway's processor busy, %)", func(m *result) (string, float64) {
		return fmt.Sprintf("%.0f (%.0f)", m.Throughput, 100*m.Busy), 0
	}, busy)
	r.table(w, "p50, ms", func(m *result) (string, float64) { return milliseconds(m.P50), float64(m.P50) }, busy)
	r.table(w, "p99, ms", func(m *result) (string, float64) { return milliseconds(m.P99), float64(m.P99) }, busy)
	r.table(w, "Peak memory, MiB", func(m *result) (string, float64) {
		return fmt.Sprintf("%.1f", m.Memory/(1<<20)), m.Memory
	}, func(*scene) bool { return true })
	r.errors(w)
	if r.Scaling != nil {
		r.Scaling.markdown(w)
	}
}

// table prints a figure of some cases, and how it compares if it isn't 0.
func (r *report) table(w io.Writer, title string, figure func(*result) (string, float64), which func(*scene) bool) {
	if !slices.ContainsFunc(r.cases, which) {
		return
	}
	r.header(w, title)
	for _, c := range r.cases {
		if which(c) {
			r.row(w, c, c.name, figure)
		}
	}
}

func (r *report) header(w io.Writer, title string) {
	fmt.Fprintf(w, "\n| %s |", title)
	var columns int
	for _, p := range r.Peers {
		if !p.Missing {
			fmt.Fprintf(w, " %s |", p.Name)
			columns++
		}
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---:|", columns))
}

func (r *report) row(w io.Writer, c *scene, name string, figure func(*result) (string, float64)) {
	fmt.Fprintf(w, "| %s |", name)
	for _, p := range r.Peers {
		m := r.of(c, p.Name)
		if p.Missing {
			continue
		}
		if m == nil {
			fmt.Fprint(w, " |")
			continue
		}
		text, value := figure(m)
		if value > 0 {
			if ratio := r.ratio(c, p.Name, func(m *result) float64 { _, value := figure(m); return value }); ratio > 0 {
				text += fmt.Sprintf(" (%.2f×)", ratio)
			}
		}
		if m.Errors > 0 {
			text += fmt.Sprintf(" **%d errors**", m.Errors)
		}
		fmt.Fprintf(w, " %s |", text)
	}
	fmt.Fprintln(w)
}

func (r *report) resting(w io.Writer, c *scene) {
	r.header(w, "Memory of each, bytes: "+c.name)
	r.row(w, c, c.rests[0], func(m *result) (string, float64) { return fmt.Sprintf("%.0f", m.Opened), m.Opened })
	r.row(w, c, c.rests[1], func(m *result) (string, float64) { return fmt.Sprintf("%.0f", m.Used), m.Used })
}

func (r *report) errors(w io.Writer) {
	for _, m := range r.Medians {
		if m.Errors > 0 {
			fmt.Fprintf(w, "\n%s, %s: %d errors, the first: %s\n", m.Case, m.Peer, m.Errors, m.Error)
		}
	}
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

func (s *scaling) markdown(w io.Writer) {
	one := func(r result) string {
		if r.Errors > 0 {
			return fmt.Sprintf("%.1f **%d errors: %s**", r.CPU, r.Errors, r.Error)
		}
		return fmt.Sprintf("%.1f", r.CPU)
	}
	fmt.Fprint(w, "\n| Limpet's backends | pinned request, µs | rendezvous, ns | for each backend, ns | health sweep, µs | for each backend, µs | on kept connections, µs | for each backend, µs |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for i, b := range s.Backends {
		n := float64(b.Backends)
		fmt.Fprintf(w, "| %d | %s | %.0f | %.2f | %.0f | %.1f | %.0f | %.1f |\n",
			b.Backends, one(s.Requests[i]), b.Pick, b.Pick/n, b.Sweep, b.Sweep/n, b.Kept, b.Kept/n)
	}
	fmt.Fprint(w, "\n| tunnels | message there and back, µs | nginx |\n|---:|---:|---:|\n")
	for i, r := range s.Messages {
		base := "-"
		if s.Baseline != nil {
			base = one(s.Baseline[i])
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", r.Case, one(r), base)
	}
}
