//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/internal/meter"
)

// metrics are the figures of one measurement, by name. The names are those of the tables.
type metrics map[string]float64

const (
	publisherCPU  = "Processor time of the publisher, µs a message"
	subscriberCPU = "Processor time of a subscriber, µs a message"
	redisCPU      = "Processor time of Redis, µs a message"
	perSecond     = "Messages a second"
	p50           = "p50, µs"
	p99           = "p99, µs"

	openingCPU  = "Processor time to connect, µs a member"
	openingTime = "Time to connect all, ms"
	opened      = "Memory, bytes a member: connected"
	used        = "Memory, bytes a member: after the broadcasts"
	deliveryCPU = "Processor time, µs a delivery"
	delivery    = "Time until all have a broadcast, p50, ms"
)

// A measurement is one case of one peer in one round.
type measurement struct {
	round int
	load  string
	peer  *peer
	metrics
}

// A report is all that a run of this program found out.
type report struct {
	bench    *bench
	rounds   int
	base     string // the peer that ratios are to
	missing  []string
	failures []string
	all      []measurement
}

func (r *report) add(round int, load string, p *peer, m metrics) {
	r.all = append(r.all, measurement{round, load, p, m})
}

// markdown prints the tables. It fails if a case has.
func (r *report) markdown(w io.Writer, peers []*peer) error {
	fmt.Fprintf(w, "# Results of internal/busbench\n\n%s; medians of %d rounds, and of their ratios to %s.\n", meter.Machine(), r.rounds, r.base)
	if version, err := exec.Command("redis-server", "--version").Output(); err == nil {
		fmt.Fprintf(w, "%s; %s.\n", strings.Join(strings.Fields(string(version))[:3], " "), modules())
	}
	fmt.Fprintf(w, "Publishers, subscribers and Redis share all processors.\n\n## Messages over Redis\n\n")
	r.section(w, peers, false, []string{publisherCPU, subscriberCPU, redisCPU, perSecond, p50, p99})
	if r.bench.count > 0 {
		fmt.Fprintf(w, "\n## %d WebSockets of one hub\n\n", r.bench.count)
		r.section(w, peers, true, []string{deliveryCPU, delivery, openingCPU, openingTime, opened, used})
	}
	for _, line := range r.missing {
		fmt.Fprintf(w, "\n%s\n", line)
	}
	if r.failures != nil {
		fmt.Fprintf(w, "\n**Failed, and not measured any more:**\n\n- %s\n", strings.Join(r.failures, "\n- "))
		return errors.New("some cases failed")
	}
	return nil
}

// section prints the tables of peers with members, or of those without.
func (r *report) section(w io.Writer, peers []*peer, members bool, figures []string) {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return (p.hub != nil) != members })
	for _, p := range peers {
		fmt.Fprintf(w, "- %s: %s\n", p.name, p.does)
	}
	for _, figure := range figures {
		fmt.Fprintf(w, "\n| %s |", figure)
		for _, p := range peers {
			fmt.Fprintf(w, " %s |", p.name)
		}
		fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---:|", len(peers)))
		var seen []string
		for _, m := range r.all {
			if _, has := m.metrics[figure]; has && (m.peer.hub != nil) == members && !slices.Contains(seen, m.load) {
				seen = append(seen, m.load)
				fmt.Fprintf(w, "| %s |", m.load)
				for _, p := range peers {
					fmt.Fprintf(w, " %s |", r.cell(m.load, p, figure))
				}
				fmt.Fprintln(w)
			}
		}
	}
}

// cell is the median of the rounds, and that of the ratios to the baseline.
func (r *report) cell(load string, p *peer, figure string) string {
	var values, ratios []float64
	for _, m := range r.all {
		if m.load != load || m.peer != p {
			continue
		}
		values = append(values, m.metrics[figure])
		for _, base := range r.all {
			if base.load == load && base.round == m.round && base.peer.name == r.base && base.peer != p && base.metrics[figure] > 0 {
				ratios = append(ratios, m.metrics[figure]/base.metrics[figure])
			}
		}
	}
	if len(values) == 0 {
		return "-"
	}
	text := fmt.Sprintf("%.0f", median(values))
	if median(values) < 100 {
		text = fmt.Sprintf("%.1f", median(values))
	}
	if len(ratios) > 0 {
		text += fmt.Sprintf(" (%.2f×)", median(ratios))
	}
	return text
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[(len(all)-1)/2]
}
