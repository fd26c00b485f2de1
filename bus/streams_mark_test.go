package bus

import (
	"math/rand/v2"
	"testing"
)

// Publishers have several messages in hand and send them again and again, also
// when they are done with them; all that arrives in any order.
func TestTracker(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		type message struct {
			mark
			done    func()
			arrived bool // at least once
			open    bool
			counted int
		}
		publishers := []*ledger{{}, {}, {}}
		var all []*message
		var tr tracker
		passed := map[uint64]uint64{} // by publisher: what it was done with when it began with a message that has arrived
		arrive := func(m *message) {
			late := m.number < passed[m.publisher]
			first := tr.first(m.mark, 0)
			if first {
				m.counted++
			}
			if want := !m.arrived; first != want && !(late && want && !first && !m.open) {
				t.Fatalf("seed %d: number %d of %x: first %v", seed, m.number, m.publisher, first)
			}
			if first && late {
				t.Fatalf("seed %d: number %d of %x comes behind %d", seed, m.number, m.publisher, passed[m.publisher])
			}
			m.arrived = true
			passed[m.publisher] = max(passed[m.publisher], m.mark.open)
		}
		for range 300 {
			switch {
			case rnd.IntN(3) == 0 || len(all) == 0:
				m, done := publishers[rnd.IntN(len(publishers))].open()
				all = append(all, &message{mark: m, done: done, open: true})
			case rnd.IntN(3) == 0:
				m := all[rnd.IntN(len(all))]
				if rnd.IntN(10) > 0 && !m.arrived {
					arrive(m) // or it is given up
				}
				if m.open {
					m.open = false
					m.done()
				}
			default:
				arrive(all[rnd.IntN(len(all))])
			}
		}
		for _, m := range all {
			if m.counted > 1 {
				t.Fatalf("seed %d: number %d of %x counted %d times", seed, m.number, m.publisher, m.counted)
			}
		}
	}
}

// Publishers come and go.
func TestTrackerForgets(t *testing.T) {
	t.Parallel()
	var tr tracker
	const day = 24 * 60
	for minute := range uint64(day) {
		if !tr.first(mark{publisher: minute, number: 1, open: 1}, minute*60_000) {
			t.Fatal("a new publisher's first message counts as a copy")
		}
	}
	if n := len(tr.publishers); n > 100 {
		t.Errorf("%d publishers are remembered", n)
	}
	if tr.first(mark{publisher: day - 20, number: 1, open: 1}, day*60_000) {
		t.Error("a publisher of 20 minutes ago is forgotten")
	}
}

func FuzzMark(f *testing.F) {
	for _, s := range []string{"", " ", "k3j9x0 1f 1e", "1 2 3", "-1 1 1", "1 1 1 1", "1 3w5e11264sgsf 1", "zzzzzzzzzzzzzzzz 1 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMark(s)
		if err != nil {
			return
		}
		if again, err := parseMark(m.String()); err != nil || again != m {
			t.Errorf("%q is %+v, and then %+v, %v", s, m, again, err)
		}
		var tr tracker
		if !tr.first(m, 0) || tr.first(m, 0) {
			t.Errorf("%q isn't told apart from its copy", s)
		}
	})
}

func FuzzStreamEntry(f *testing.F) {
	f.Add("1-2", "m", "1 1 1", "d", "data")
	f.Add("1", "d", "", "d", "")
	f.Add("-", "m", "", "x", "y")
	f.Add("18446744073709551615-18446744073709551616", "", "", "", "")
	f.Fuzz(func(t *testing.T, id, k1, v1, k2, v2 string) {
		for _, fields := range [][]any{nil, {k1}, {k1, v1, k2}, {k1, v1, k2, v2}, {k1, int64(1), k2, nil}} {
			e, err := parseEntry([]any{id, fields})
			if err != nil {
				continue
			}
			if again, err := parseStreamID(e.id.String()); err != nil || again != e.id {
				t.Errorf("ID %q is %v, and then %v, %v", id, e.id, again, err)
			}
		}
		for _, v := range []any{nil, id, []any{id}, []any{1, 2}, []any{id, k1}} {
			_, _ = parseEntry(v)
		}
	})
}
