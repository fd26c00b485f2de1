package main

import (
	"strconv"

	"github.com/limpet-go/limpet/balancer"
)

// A lossResult says what the loss of one backend costs with a way to place clients.
type lossResult struct {
	name string
	// down is the share of the sessions that move when health finds a backend down, and
	// removed the share when it is taken out of the configuration. The ideal is one of
	// the number of backends.
	down, removed float64
}

// lose takes one backend of all away.
func (w world) lose() []lossResult {
	lost := w.backends / 3
	all := upTo(w.backends)
	var left []int
	for _, b := range all {
		if b != lost {
			left = append(left, b)
		}
	}
	at := w.clients()
	// The share doesn't depend on the number of sessions, and a hundredth gives three digits.
	step := max(1, w.sessions/1_000_000)
	var results []lossResult
	for _, h := range hashes() {
		before, down, removed := h.build(all, nil), h.build(all, map[int]bool{lost: true}), h.build(left, nil)
		var n, movedDown, movedRemoved int
		for i := 0; i < w.sessions; i += step {
			c := at(i)
			home := before(c)
			n++
			if down(c) != home {
				movedDown++
			}
			if removed(c) != home {
				movedRemoved++
			}
		}
		results = append(results, lossResult{h.name, share(movedDown, n), share(movedRemoved, n)})
	}
	return append([]lossResult{w.losePins(lost)}, results...)
}

// losePins does the same with pins, which a cookie or a session ID carries.
func (w world) losePins(lost int) lossResult {
	pool := newPool(nil, upTo(w.backends))
	homes := make([]uint16, w.sessions)
	for i := range homes {
		homes[i] = uint16(pick(pool, ""))
	}
	moved := func() float64 {
		n := 0
		for _, home := range homes {
			if pick(pool, strconv.Itoa(int(home))) != int(home) {
				n++
			}
		}
		return share(n, len(homes))
	}
	r := lossResult{name: "Limpet pin"}
	id := strconv.Itoa(lost)
	if err := pool.Off(id); err != nil {
		panic(err)
	}
	r.down = moved()
	if err := pool.Remove(id); err != nil {
		panic(err)
	}
	r.removed = moved()
	return r
}

func share(n, of int) float64 { return float64(n) / float64(of) }

// pick returns the number of the backend that a pool picks for a client with this home.
func pick(pool *balancer.Pool, home string) int {
	b, err := pool.Pick(nil, home, "")
	if err != nil {
		panic(err)
	}
	return number(b)
}
