package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// carriers is how many networks the clients of mobile carriers come from, a /24 each. They
// have a third of the sessions, and the largest has as many times those of the n-th as n
// (Zipf's law), behind 256 addresses that all of its clients share.
const carriers = 50

// clients returns a function that gives the client of each session, always the same. Two
// thirds come from homes and offices: one to three sessions an address, and 60 addresses of
// a /24 in use.
func (w world) clients() func(session int) client {
	const homesPerNet, perHome = 60, 2
	fromCarriers := w.sessions / 3
	var ends []float64 // of the carriers' shares
	sum := 0.0
	for n := range carriers {
		sum += 1 / float64(n+1)
		ends = append(ends, sum)
	}
	return func(i int) client {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		c := client{key: strconv.FormatUint(r.Uint64(), 36)}
		if i < fromCarriers {
			n, _ := slices.BinarySearch(ends, r.Float64()*sum)
			c.addr = [4]byte{100, byte(64 + n/256), byte(n), byte(r.IntN(256))}
			return c
		}
		nets := int(math.Ceil(float64(w.sessions-fromCarriers) / (homesPerNet * perHome)))
		n := r.IntN(nets)
		c.addr = [4]byte{byte(1 + n>>16), byte(n >> 8), byte(n), byte(r.IntN(homesPerNet))}
		return c
	}
}

// largestCarrier returns the largest carrier's share of all sessions.
func largestCarrier() float64 {
	sum := 0.0
	for n := range carriers {
		sum += 1 / float64(n+1)
	}
	return 1 / sum / 3
}
