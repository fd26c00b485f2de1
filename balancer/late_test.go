package balancer_test

import (
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// Who gets new clients while backends are ill that all give signs of life: a late one gets
// none, unless most of them let clients wait. All others are as well as they can be.
func TestLateBackends(t *testing.T) {
	const nobody = ""
	for _, tt := range []struct {
		name    string
		ids     string
		does    map[string]string // by backend: hung is late, sick answers 503, refused turns checks away
		stalled string
		drained string
		ejected string
		want    string // who gets new clients
	}{
		{"one of two", "ab", map[string]string{"a": "hung"}, nobody, nobody, nobody, "b"},
		{"one of three", "abc", map[string]string{"a": "hung"}, nobody, nobody, nobody, "bc"},
		{"two of three", "abc", map[string]string{"a": "hung", "c": "hung"}, nobody, nobody, nobody, "abc"},
		{"two of four", "abcd", map[string]string{"a": "hung", "c": "hung"}, nobody, nobody, nobody, "bd"},
		{"two of five", "abcde", map[string]string{"a": "hung", "c": "hung"}, nobody, nobody, nobody, "bde"},
		{"three of five", "abcde", map[string]string{"a": "hung", "b": "hung", "c": "hung"}, nobody, nobody, nobody, "abcde"},
		{"all", "abc", map[string]string{"a": "hung", "b": "hung", "c": "hung"}, nobody, nobody, nobody, "abc"},
		{"one and a stalled one of three", "abc", map[string]string{"a": "hung"}, "b", nobody, nobody, "abc"},
		{"one and a stalled one of four", "abcd", map[string]string{"a": "hung"}, "b", nobody, nobody, "cd"},
		{"two of three answer 503", "abc", map[string]string{"a": "sick", "c": "sick"}, nobody, nobody, nobody, "b"},
		{"two of three turn checks away", "abc", map[string]string{"a": "refused", "c": "refused"}, nobody, nobody, nobody, "b"},
		{"two, and one answers 503", "abcd", map[string]string{"a": "hung", "b": "hung", "c": "sick"}, nobody, nobody, nobody, "abd"},
		{"one of two, and two answer 503", "abcd", map[string]string{"a": "hung", "b": "sick", "c": "sick"}, nobody, nobody, nobody, "d"},
		{"two, and one is drained", "abcd", map[string]string{"a": "hung", "b": "hung"}, nobody, "b", nobody, "cd"},
		{"two, and one is an outlier", "abcd", map[string]string{"a": "hung", "b": "hung"}, nobody, nobody, "b", "cd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ids []string
			for _, id := range tt.ids {
				ids = append(ids, string(id))
			}
			run(t, balancer.Options{Outliers: &balancer.Outliers{Panic: 0.1}}, ids, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				p.OnUnanswered(func(*balancer.Backend) balancer.Signs { return balancer.Signs{Waiting: 1, Heard: time.Now()} })
				if tt.ejected != nobody {
					observe(p, tt.ejected, 5, reset)
				}
				for id, does := range tt.does {
					f.set(does, id)
				}
				sleep(4 * time.Second)
				if tt.stalled != nobody {
					stall(p, p.Get(tt.stalled))
				}
				if tt.drained != nobody {
					must(t, p.Drain(tt.drained, 0))
				}
				wantPicks(t, p, tt.want, tt.stalled == nobody) // keys are placed without regard to that
				for id := range tt.does {
					if b := p.Get(id); b.State() != balancer.Draining || b.Health() != balancer.Sick {
						t.Errorf("%s is %v, %v", id, b.State(), b.Health())
					}
				}

				// One that then says why it is sick gets no new clients, and all are well again.
				if len(tt.does) == 2 && tt.want == "abc" {
					f.set("sick", "a")
					sleep(2 * time.Second)
					wantPicks(t, p, "b", true)
					f.set("hung", "a")
					sleep(2 * time.Second)
					wantPicks(t, p, "abc", true)
					f.set("", "c")
					sleep(4 * time.Second)
					wantPicks(t, p, "bc", true)
				}
			})
		})
	}
}

// wantPicks tests that new clients, those with a key too if keys is set, get these backends, and
// all of them.
func wantPicks(t *testing.T, p *balancer.Pool, want string, keys bool) {
	t.Helper()
	for _, key := range []bool{false, true} {
		if key && !keys {
			return
		}
		got := make(map[string]int)
		for i := range 100 * len(want) {
			k := ""
			if key {
				k = time.Duration(i).String()
			}
			b, err := p.Pick(nil, "", k)
			must(t, err)
			got[b.ID()]++
		}
		for _, id := range want {
			if n := got[string(id)]; n < 40 {
				t.Errorf("with a key %v, %c gets %d new clients of %v", key, id, n, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("with a key %v, new clients go to %v, want %s", key, got, want)
		}
	}
}
