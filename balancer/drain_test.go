package balancer_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func TestDrainLetsEachClientLeaveAtItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, nil, "a", "b")
		a := p.Get("a")
		lost := a.Lost()
		must(t, p.Drain("a", time.Minute))
		start := time.Now()

		turn := time.Duration(balancer.Turn("client") * float64(time.Minute))
		if turn <= 0 || turn >= time.Minute {
			t.Fatalf("a turn at %v, want one within the drain", turn)
		}
		time.Sleep(turn - time.Millisecond)
		if !a.Keeps("client") {
			t.Error("the client left before its turn")
		}
		if b, err := p.Pick(nil, "a", "client"); err != nil || b != a {
			t.Errorf("picked %v, %v for a pinned client before its turn, want its home", b, err)
		}
		if b, err := p.Pick(nil, "", ""); err != nil || b == a {
			t.Errorf("picked %v, %v for a new client, want the backend that isn't drained", b, err)
		}
		time.Sleep(2 * time.Millisecond)
		if a.Keeps("client") {
			t.Error("the client stays after its turn")
		}
		if b, err := p.Pick(nil, "a", "client"); err != nil || b == a {
			t.Errorf("picked %v, %v for a pinned client after its turn, want another backend", b, err)
		}
		if w := a.Wish(); w.State != balancer.Draining || !w.Since.Equal(start) || w.Within != time.Minute {
			t.Errorf("wish %+v", w)
		}

		time.Sleep(time.Until(start.Add(time.Minute - time.Millisecond)))
		if !a.Keeps("") || a.State() != balancer.Draining || closed(lost) {
			t.Error("a client without a key must stay until the deadline")
		}
		time.Sleep(2 * time.Millisecond)
		if a.Keeps("") || a.State() != balancer.Down || !closed(lost) {
			t.Errorf("past the deadline: %v, lost: %v", a.State(), closed(lost))
		}

		must(t, p.Undrain("a"))
		if a.State() != balancer.Up || closed(a.Lost()) {
			t.Errorf("undrained: %v, lost: %v", a.State(), closed(a.Lost()))
		}
	})
}

func TestUndrainStopsTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, nil, "a", "b", "c")
		for _, b := range []string{"a", "b", "c"} {
			must(t, p.Drain(b, time.Minute))
		}
		time.Sleep(time.Second)
		must(t, p.Undrain("a"))
		must(t, p.Drain("b", 0))
		c := p.Get("c")
		must(t, p.Remove("c"))
		time.Sleep(time.Hour)
		if s := p.Get("a").State(); s != balancer.Up {
			t.Errorf("undrained: %v, want up", s)
		}
		if b := p.Get("b"); b.State() != balancer.Draining || !b.Keeps("client") || !b.Keeps("") {
			t.Errorf("drained without a deadline: %v, want all pinned clients to stay", b.State())
		}
		if c.State() != balancer.Down {
			t.Errorf("removed: %v, want down", c.State())
		}
	})
}

// A drain that began elsewhere ends when it does there.
func TestDrainSinceAMomentAgo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, nil, "a", "b", "c")
		start := time.Now().Add(-20 * time.Second).Round(0) // as from another machine
		want := balancer.Wish{State: balancer.Draining, Since: start, Within: time.Minute}
		must(t, p.SetWish("a", want))
		a := p.Get("a")
		if got := a.Wish(); !got.Equal(want) || a.State() != balancer.Draining {
			t.Errorf("wish %+v, %v", got, a.State())
		}
		for _, key := range []string{"one", "two", "three", "four", "five", "six"} {
			if left := balancer.Turn(key)*60 < 20; left == a.Keeps(key) {
				t.Errorf("%s has turn %v: keeps it is %v", key, balancer.Turn(key), a.Keeps(key))
			}
		}
		time.Sleep(39 * time.Second)
		if a.State() != balancer.Draining {
			t.Errorf("before the end: %v", a.State())
		}
		time.Sleep(2 * time.Second)
		if a.State() != balancer.Down || !a.Wish().Equal(want) {
			t.Errorf("past the end: %v, wish %+v", a.State(), a.Wish())
		}
		must(t, p.SetWish("b", want)) // it arrives late
		if s := p.Get("b").State(); s != balancer.Down {
			t.Errorf("a drain that is over already: %v", s)
		}
		must(t, p.Off("c"))
		if w := p.Get("c").Wish(); w.State != balancer.Down {
			t.Errorf("off: %+v", w)
		}
		for _, id := range []string{"a", "b", "c"} {
			must(t, p.SetWish(id, balancer.Wish{}))
			if w := p.Get(id).Wish(); !w.Equal(balancer.Wish{Since: time.Now()}) || p.Get(id).State() != balancer.Up {
				t.Errorf("%s: %+v, %v", id, w, p.Get(id).State())
			}
		}
		if p.SetWish("a", balancer.Wish{State: 7}) == nil || p.SetWish("a", balancer.Wish{State: balancer.Down, Within: time.Minute}) == nil || p.SetWish("x", want) == nil {
			t.Error("a wish that makes no sense")
		}
	})
}

// A drain that begins in the future of this machine's clock begins now: clients
// would come back to a backend that keeps them, and whose tunnels are closed.
func TestDrainSinceLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, nil, "a", "b")
		now := time.Now()
		want := balancer.Wish{State: balancer.Draining, Since: now.Add(20 * time.Second).Round(0), Within: time.Minute}
		must(t, p.SetWish("a", want))
		a := p.Get("a")
		if got := a.Wish(); !got.Equal(want) {
			t.Errorf("wish %+v, want %+v", got, want)
		}
		time.Sleep(30 * time.Second)
		for _, key := range []string{"one", "two", "three", "four", "five", "six"} {
			if left := balancer.Turn(key) < 0.5; left == a.Keeps(key) {
				t.Errorf("%s has turn %v: keeps it is %v", key, balancer.Turn(key), a.Keeps(key))
			}
		}
		time.Sleep(31 * time.Second)
		if a.State() != balancer.Down {
			t.Errorf("past the end: %v", a.State())
		}
	})
}

func TestTurnSpreadsEvenly(t *testing.T) {
	t.Parallel()
	const keys = 100_000
	var tenths [10]int
	for i := range keys {
		turn := balancer.Turn(fmt.Sprint("key-", i))
		if turn < 0 || turn >= 1 {
			t.Fatalf("turn %v is not within 0 and 1", turn)
		}
		tenths[int(turn*10)]++
	}
	for i, n := range tenths {
		// Five standard deviations of a binomial: sqrt(100,000 x 0.1 x 0.9) = 95.
		if n < keys/10-475 || n > keys/10+475 {
			t.Errorf("tenth %d: %d turns, want about %d", i, n, keys/10)
		}
	}
}
