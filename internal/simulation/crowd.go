package main

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// What a client that lost its connection does is Socket.IO's default: it waits for one
// second, up to half of that more or less, and gives an attempt 20 seconds.
const (
	clientDelay   = time.Second
	clientTimeout = 20 * time.Second
)

// handshakes is how many of them a backend completes in a second.
const handshakes = 200

// A crowdResult says how the clients of a tenth of all backends come back elsewhere.
type crowdResult struct {
	name    string
	peak    float64       // new connections at a backend within the worst second, on average
	wait    time.Duration // the longest that a client waited for its handshake
	back    time.Duration // until the last one was back
	arrival []int         // at all backends in each second
}

// crowd takes a tenth of the backends away, at once and by drains.
func (w world) crowd() []crowdResult {
	turn := func(within time.Duration) func(int) time.Duration {
		return func(i int) time.Duration {
			return time.Duration(balancer.Turn("client "+strconv.Itoa(i)) * float64(within))
		}
	}
	return []crowdResult{
		w.come("at once", func(int) time.Duration { return 0 }),
		w.come("over 30 s", turn(30*time.Second)),
		w.come("over 2 min", turn(2*time.Minute)),
	}
}

// come has each client lose its connection when leave says, and come back at one of the
// backends that are left, each of which serves one handshake after the other.
func (w world) come(name string, leave func(client int) time.Duration) crowdResult {
	r := rand.New(rand.NewPCG(3, 4))
	clients := w.sessions / 10
	arrivals := make([]time.Duration, clients)
	for i := range arrivals {
		arrivals[i] = leave(i) + clientDelay/2 + time.Duration(r.Float64()*float64(clientDelay))
	}
	slices.Sort(arrivals)
	left := w.backends - w.backends/10
	free := make([]time.Duration, left) // when each has served those who wait
	res := crowdResult{name: name}
	for _, at := range arrivals {
		b := r.IntN(left)
		free[b] = max(free[b], at) + time.Second/handshakes
		wait := free[b] - at
		if wait > clientTimeout {
			panic("a client gives up, which this doesn't simulate: use fewer sessions for each backend")
		}
		res.wait, res.back = max(res.wait, wait), max(res.back, free[b])
		second := int(at / time.Second)
		for len(res.arrival) <= second {
			res.arrival = append(res.arrival, 0)
		}
		res.arrival[second]++
	}
	res.peak = float64(slices.Max(res.arrival)) / float64(left)
	return res
}
