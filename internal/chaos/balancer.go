//go:build unix

package chaos

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

// A loadBalancer is what stands in front of the gateways, without any stickiness: it asks
// each one whether it is ready, often, and clients choose among those that are.
type loadBalancer struct {
	gateways []*replica
}

// A replica is a gateway as the load balancer sees it.
type replica struct {
	id, addr, admin string
	ready           atomic.Bool
	silent          int // probes without an answer in a row
}

// probeEvery is how often a gateway is asked. A gateway's lame duck has to be longer. One
// that doesn't answer, rather than say that it isn't ready, is asked once more.
const probeEvery = 100 * time.Millisecond

// run asks the gateways until ctx ends.
func (lb *loadBalancer) run(ctx context.Context) {
	web := &http.Client{Transport: &http.Transport{}, Timeout: time.Second}
	defer web.CloseIdleConnections()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		for _, g := range lb.gateways {
			g.ask(ctx, web)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask asks g whether it is ready.
func (g *replica) ask(ctx context.Context, web *http.Client) {
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+"/readyz", nil)
	res, err := web.Do(req)
	if err != nil {
		if g.silent++; g.silent > 1 {
			g.ready.Store(false)
		}
		return
	}
	res.Body.Close()
	g.silent = 0
	g.ready.Store(res.StatusCode == http.StatusOK)
}

// choose returns one of the gateways that are ready, or any if none is.
func (lb *loadBalancer) choose(random *rand.Rand) *replica {
	at := random.IntN(len(lb.gateways))
	for i := range lb.gateways {
		if g := lb.gateways[(at+i)%len(lb.gateways)]; g.ready.Load() {
			return g
		}
	}
	return lb.gateways[at]
}
