package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

var small = world{backends: 40, sessions: 40_000}

// What moves when a backend is lost is exactly what was there, with pins and with keys.
func TestLose(t *testing.T) {
	t.Parallel()
	ideal := 1 / float64(small.backends)
	for _, r := range small.lose() {
		least, most := 0.0, 1.0
		switch {
		case strings.HasPrefix(r.name, "Limpet"), r.name == "ring":
			least, most = ideal/2, 2*ideal
			if r.down != r.removed {
				t.Errorf("%s: %.3f move of a backend that is down, and %.3f of one that was taken out", r.name, r.down, r.removed)
			}
		case r.name == "modulo", r.name == "ip_hash":
			least = 0.9
		}
		if r.removed < least || r.removed > most {
			t.Errorf("%s: %.3f of the sessions move, want %.3f to %.3f", r.name, r.removed, least, most)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	worst := map[string]float64{}
	for _, r := range small.spread() {
		worst[r.name] = r.worst
		if r.worst < 1 || r.least > 1 {
			t.Errorf("%s: the most loaded backend has %.3f of the mean, and the least loaded %.3f", r.name, r.worst, r.least)
		}
	}
	// Each is more even than the next.
	order := []string{"LeastConn", "TwoChoices", "RoundRobin", "ip_hash"}
	for i, name := range order[1:] {
		if better := order[i]; worst[better] >= worst[name] {
			t.Errorf("%s is at %.3f, and %s at %.3f", better, worst[better], name, worst[name])
		}
	}
	if worst["Limpet addr."] >= worst["ip_hash"]/2 {
		t.Errorf("a hash of the whole address is at %.3f, and one of three bytes at %.3f", worst["Limpet addr."], worst["ip_hash"])
	}
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	results := small.crowd()
	for i, r := range results {
		sum := 0
		for _, n := range r.arrival {
			sum += n
		}
		if sum != small.sessions/10 {
			t.Errorf("%s: %d clients came back of %d", r.name, sum, small.sessions/10)
		}
		if i > 0 && r.peak >= results[i-1].peak/2 {
			t.Errorf("%s: %.1f new connections within a second, and %s: %.1f", r.name, r.peak, results[i-1].name, results[i-1].peak)
		}
	}
}

func TestDeploy(t *testing.T) {
	t.Parallel()
	results := small.deploy()
	alone, balanced := results[0], results[1]
	if balanced.half < 0 || balanced.nine < balanced.half || alone.half >= 0 && alone.half < 5*balanced.half {
		t.Errorf("the emptiest backend has half of the mean after %v and %v, left alone after %v", balanced.half, balanced.nine, alone.half)
	}
	if alone.moved < 1 || balanced.moved < alone.moved || balanced.moved > alone.moved+1.5 {
		t.Errorf("a session moves %.2f times, left alone %.2f", balanced.moved, alone.moved)
	}
}

func TestRebalanceKeepsSessions(t *testing.T) {
	t.Parallel()
	n, up := []float64{0, 100, 200, 50}, []bool{true, true, true, false}
	for range 100 {
		rebalance(n, up, 0.1)
		if sum := n[0] + n[1] + n[2]; sum < 299.9 || sum > 300.1 {
			t.Fatalf("%.1f sessions are left of 300", sum)
		}
	}
	for _, v := range n[:3] {
		if v < 89 || v > 111 { // a tenth is the standard deviation
			t.Errorf("after all, %v", n)
		}
	}
	if n[3] != 50 {
		t.Errorf("a backend that isn't up has %v", n[3])
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := simulate(small)
	md := r.markdown()
	for _, want := range []string{"| Limpet pin |", "| LeastConn |", "| over 30 s |", "| left alone |"} {
		if !strings.Contains(md, want) {
			t.Errorf("the tables lack %q", want)
		}
	}
	if strings.Contains(md, "NaN") || strings.Contains(md, "%!") {
		t.Errorf("a figure went wrong:\n%s", md)
	}
	d := xml.NewDecoder(bytes.NewReader(r.chart()))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadSizes(t *testing.T) {
	t.Parallel()
	for _, w := range []world{{}, {backends: 19, sessions: 1000}, {backends: 70_000, sessions: 1_000_000}, {backends: 100, sessions: 999}} {
		if err := run(w, ""); err == nil {
			t.Errorf("%+v was accepted", w)
		}
	}
}
