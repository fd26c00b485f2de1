//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/limpet-go/limpet/internal/meter"
)

// A report is all that a run of this program found out.
type report struct {
	Time    time.Time      `json:"time"`
	Machine string         `json:"machine"`
	Pinned  bool           `json:"pinned"` // the gateway has a processor of its own
	Rounds  int            `json:"rounds"`
	Sizes   sizes          `json:"sizes"`
	Peers   []reportedPeer `json:"peers"`
	Medians []result       `json:"medians"` // of the rounds, figure by figure
	Runs    []result       `json:"runs"`
	Scaling *scaling       `json:"scaling,omitempty"`

	bench *bench
	cases []*scene
}

type reportedPeer struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Missing bool   `json:"missing,omitempty"`
}

func newReport(b *bench, rounds int, cases []*scene, peers []*peer) *report {
	r := &report{Time: time.Now(), Machine: meter.Machine(), Rounds: rounds, Sizes: b.sizes, bench: b, cases: cases}
	for _, p := range peers {
		known := reportedPeer{Name: p.name, Missing: p.path == ""}
		if !known.Missing {
			known.Version = p.version()
		}
		r.Peers = append(r.Peers, known)
	}
	return r
}

// summarise fills in the medians.
func (r *report) summarise() {
	for _, c := range r.cases {
		for _, p := range r.Peers {
			var runs []result
			for _, run := range r.Runs {
				if run.Case == c.name && run.Peer == p.Name {
					runs = append(runs, run)
				}
			}
			if len(runs) > 0 {
				m := medians(runs)
				m.Ratio = r.ratio(c, p.Name, func(m *result) float64 { return m.CPU })
				r.Medians = append(r.Medians, m)
			}
		}
	}
}

// medians are taken figure by figure; errors are added up.
func medians(runs []result) result {
	m := result{Case: runs[0].Case, Peer: runs[0].Peer}
	for _, run := range runs {
		if m.Errors += run.Errors; m.Error == "" {
			m.Error = run.Error
		}
	}
	m.Operations = middle(runs, func(r result) int { return r.Operations })
	m.CPU = middle(runs, func(r result) float64 { return r.CPU })
	m.Busy = middle(runs, func(r result) float64 { return r.Busy })
	m.Throughput = middle(runs, func(r result) float64 { return r.Throughput })
	m.P50 = middle(runs, func(r result) time.Duration { return r.P50 })
	m.P99 = middle(runs, func(r result) time.Duration { return r.P99 })
	m.Memory = middle(runs, func(r result) float64 { return r.Memory })
	m.Opened = middle(runs, func(r result) float64 { return r.Opened })
	m.Used = middle(runs, func(r result) float64 { return r.Used })
	return m
}

func middle[T cmp.Ordered](runs []result, figure func(result) T) T {
	return median(each(runs, figure))
}

func each[E, T any](all []E, figure func(E) T) []T {
	var figures []T
	for _, v := range all {
		figures = append(figures, figure(v))
	}
	return figures
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// write writes the tables to w, and the files. It fails if a case had errors.
func (r *report) write(w io.Writer, jsonFile, svgFile string) error {
	r.Pinned = r.bench.core != nil
	r.summarise()
	r.markdown(w)
	if jsonFile != "" {
		text, err := json.MarshalIndent(r, "", "\t")
		if err == nil {
			err = os.WriteFile(jsonFile, append(text, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	if svgFile != "" {
		if err := os.WriteFile(svgFile, r.chart(), 0o644); err != nil {
			return err
		}
	}
	failed := slices.ContainsFunc(r.Medians, func(m result) bool { return m.Errors > 0 })
	if s := r.Scaling; s != nil {
		failed = failed || slices.ContainsFunc(slices.Concat(s.Requests, s.Messages, s.Baseline), func(m result) bool { return m.Errors > 0 })
	}
	if failed {
		return errors.New("some cases had errors")
	}
	return nil
}

// of returns the medians of a case at a peer, nil if it wasn't measured.
func (r *report) of(c *scene, peer string) *result {
	for i, m := range r.Medians {
		if m.Case == c.name && m.Peer == peer {
			return &r.Medians[i]
		}
	}
	return nil
}

const baseline = "nginx" // of the ratios

// ratio returns how a figure compares to the baseline's: the median of the rounds'
// ratios, as what else the machine does changes from round to round. It is 0 if
// there is nothing to compare.
func (r *report) ratio(c *scene, peer string, figure func(*result) float64) float64 {
	var all []float64
	for i, run := range r.Runs {
		for j, base := range r.Runs {
			if run.Case == c.name && run.Peer == peer && base.Case == c.name && base.Peer == baseline && run.Round == base.Round && peer != baseline {
				if of := figure(&r.Runs[j]); of > 0 {
					all = append(all, figure(&r.Runs[i])/of)
				}
			}
		}
	}
	if len(all) == 0 {
		return 0
	}
	return median(all)
}
