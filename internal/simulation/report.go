package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/limpet-go/limpet/internal/chart"
)

// markdown returns the report's tables.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# The simulation

%s backends and %s sessions, by

    go run ./internal/simulation -svg internal/simulation/results/simulation.svg | tee internal/simulation/results/README.md

Limpet's own code is run for what is Limpet's: pins, rendezvous hashing of a session's key or of the client's address, and the
pickers. Others are a ring of 160 points a backend (nginx's consistent hash), the hash modulo the number of backends (HAProxy's
default, nginx's plain hash), and nginx's ip_hash, which takes three bytes of the address. The clients' addresses are an assumption: a third of the sessions come from %d mobile
carriers, each behind one /24, the largest with %.0f%% of them; the others from homes, one to three an address.

![Charts of these figures](simulation.svg)

## One backend is lost

The share of all sessions that move; the ideal is %.2f%%.

| placed by | found down | taken out of the configuration |
|---|---:|---:|
`, chart.Thousands(float64(r.backends)), chart.Thousands(float64(r.sessions)), carriers, 100*largestCarrier(), 100/float64(r.backends))
	for _, l := range r.loss {
		fmt.Fprintf(&b, "| %s | %.2f%% | %.2f%% |\n", l.name, 100*l.down, 100*l.removed)
	}
	b.WriteString(`
## How even the load is

Sessions of the most and of the least loaded backend, over the mean. In front of the pickers are eight replicas that count
only their own.

| placed by | most | least |
|---|---:|---:|
`)
	for _, s := range r.spread {
		fmt.Fprintf(&b, "| %s | %.3f | %.3f |\n", s.name, s.worst, s.least)
	}
	fmt.Fprintf(&b, `
## A tenth of the backends is lost

Their clients come back at the others, after Socket.IO's delay of a second. A backend completes %d handshakes a second.

| their connections end | new connections at a backend, worst second | longest wait | all are back after |
|---|---:|---:|---:|
`, handshakes)
	for _, c := range r.crowd {
		fmt.Fprintf(&b, "| %s | %.0f | %s | %s |\n", c.name, c.peak, c.wait.Round(time.Millisecond), c.back.Round(100*time.Millisecond))
	}
	fmt.Fprintf(&b, `
## After a deploy

All backends restart, a twentieth at a time, each drained within %s and back %s later. A session lasts an hour on average.
Options.Rebalance, whose own arithmetic this is, waits while backends are drained.

| | emptiest backend at the end, of the mean | half of the mean after | nine tenths after | moves of a session, on average |
|---|---:|---:|---:|---:|
`, deployDrain, deployDown)
	for _, d := range r.deploys {
		fmt.Fprintf(&b, "| %s | %.0f%% | %s | %s | %.2f |\n", d.name, 100*d.least, after(d.half), after(d.nine), d.moved)
	}
	return b.String()
}

// after says when something came about, unless it didn't within what was watched.
func after(d time.Duration) string {
	if d < 0 {
		return "more than 2 h"
	}
	return d.String()
}

// chart draws the report.
func (r *report) chart() []byte {
	c := new(chart.Chart)
	size := chart.Thousands(float64(r.backends)) + " backends, " + chart.Thousands(float64(r.sessions)) + " sessions"
	c.Heading("At a size that no test machine has", "Simulated: "+size+". Shorter is better.")
	var loss, spread, crowd []chart.Bar
	for _, l := range r.loss {
		loss = append(loss, chart.Bar{Name: l.name, Value: 100 * l.removed, Label: fmt.Sprintf("%.1f%%", 100*l.removed), Kind: kind(l.name)})
	}
	for _, s := range r.spread {
		spread = append(spread, chart.Bar{Name: s.name, Value: s.worst, Label: fmt.Sprintf("%.2f", s.worst), Kind: kind(s.name)})
	}
	for _, s := range r.crowd {
		crowd = append(crowd, chart.Bar{Name: s.name, Value: s.peak, Label: fmt.Sprintf("%.0f", s.peak), Kind: chart.Ours})
	}
	c.Bars("sessions that move", "when one backend is taken out", loss)
	c.Bars("most loaded backend", "over the mean", spread)
	c.Bars("a tenth of the backends goes", "new connections at each other, worst second", crowd)
	at, drained := r.crowd[0], r.crowd[1]
	c.Curve("who comes back when", "in each second; dashed: all at once", "s", seconds(drained.arrival, len(drained.arrival)), seconds(at.arrival, len(drained.arrival)))
	alone, balanced := r.deploys[0], r.deploys[1]
	c.Curve("emptiest backend in a deploy", "% of the mean; dashed: left alone", "min", tens(balanced.emptiest), tens(alone.emptiest))
	return c.SVG("How Limpet behaves with " + size)
}

// kind tells Limpet's ways from those of others.
func kind(name string) chart.Kind {
	for _, other := range []string{"ring", "modulo", "ip_hash"} {
		if strings.HasPrefix(name, other) {
			return chart.Other
		}
	}
	return chart.Ours
}

// seconds has a point for each of n seconds.
func seconds(counts []int, n int) []chart.Point {
	points := make([]chart.Point, n)
	for i := range points {
		points[i].X = float64(i)
		if i < len(counts) {
			points[i].Y = float64(counts[i])
		}
	}
	return points
}

// tens has a value each ten seconds, and the axis counts minutes. The first half hour is
// what there is to see.
func tens(values []float64) []chart.Point {
	var points []chart.Point
	for i, v := range values[:min(len(values), 181)] {
		points = append(points, chart.Point{X: float64(i) / 6, Y: 100 * v})
	}
	return points
}
