//go:build linux

package main

import (
	"strconv"

	"github.com/limpet-go/limpet/internal/chart"
)

// chart draws what the report has: bars for each case, and lines for how Limpet
// scales.
func (r *report) chart() []byte {
	c := new(chart.Chart)
	c.Heading("What a gateway costs", "Processor time per operation, user and system, of one worker on one core; memory per idle WebSocket. Shorter is better.")
	for _, s := range r.cases {
		if s.rests != nil {
			c.Bars(s.name, "memory of each, "+s.rests[0], r.figures(s, func(m *result) (float64, string) {
				return m.Opened, chart.Short(m.Opened/1024) + " KiB"
			}))
			c.Bars(s.name+",", "memory of each, "+s.rests[1], r.figures(s, func(m *result) (float64, string) {
				return m.Used, chart.Short(m.Used/1024) + " KiB"
			}))
			continue
		}
		c.Bars(s.name, s.does, r.figures(s, func(m *result) (float64, string) { return m.CPU, chart.Short(m.CPU) + " µs" }))
	}
	if s := r.Scaling; s != nil {
		c.Heading("Limpet as it grows", "Processor time again, and the time to pick a new home for a client. Flat is good.")
		var requests, messages, nginx, picks []chart.Point
		for i, b := range s.Backends {
			n := float64(b.Backends)
			requests = append(requests, chart.Point{X: n, Y: s.Requests[i].CPU})
			picks = append(picks, chart.Point{X: n, Y: b.Pick / n})
		}
		for _, m := range s.Messages {
			n, _ := strconv.ParseFloat(m.Case, 64)
			messages = append(messages, chart.Point{X: n, Y: m.CPU})
		}
		for i, m := range s.Baseline {
			nginx = append(nginx, chart.Point{X: messages[i].X, Y: m.CPU})
		}
		c.Line("pinned request", "µs, with so many backends", requests, nil)
		c.Line("message there and back", "µs, with so many tunnels; dashed: nginx", messages, nginx)
		c.Line("rendezvous hashing", "ns for each of so many backends", picks, nil)
	}
	return c.SVG("What Limpet costs beside other gateways")
}

// figures returns a bar for each gateway that a case was measured at.
func (r *report) figures(s *scene, figure func(*result) (value float64, label string)) []chart.Bar {
	var bars []chart.Bar
	for _, p := range r.Peers {
		kind := chart.Other
		switch p.Name {
		case "Limpet":
			kind = chart.Ours
		case baseline:
			kind = chart.Base
		}
		switch m := r.of(s, p.Name); {
		case m == nil:
		case m.Errors > 0:
			bars = append(bars, chart.Bar{Name: p.Name, Label: "errors", Kind: kind})
		default:
			value, label := figure(m)
			bars = append(bars, chart.Bar{Name: p.Name, Value: max(value, 0), Label: label, Kind: kind})
		}
	}
	return bars
}
