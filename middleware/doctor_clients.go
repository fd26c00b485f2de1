package middleware

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/limpet-go/limpet/affinity"
)

// looked is called with each pin that the affinity has found.
func (d *doctor) looked(r *http.Request, pin affinity.Pin) {
	if pin.Status == affinity.Forged || pin.Status == affinity.Hit && d.forgeries.open.Load() {
		d.marked(pin.Status == affinity.Forged, time.Now())
	}
	if d.crowd != nil {
		d.meet(r, pin.Key, time.Now())
	}
}

// forgeries looks for forged pins that don't become fewer. After a change of the secrets,
// each client has a forged pin once, and a good one from then on. Where two gateways with
// different secrets take turns, or two services use the same name for their cookies, the
// share stays.
//
// A window begins with a forged pin, and only within one are good pins counted, so that
// nothing is counted in a set-up that is in order. If requests come at the same time, some
// aren't counted.
type forgeries struct {
	open atomic.Bool // a window is open

	mu            sync.Mutex
	began         time.Time
	marks, forged int // of this window
	bad           int // windows in a row with many forged pins
}

const (
	forgeryMarks   = 64               // a window has so many pins at least,
	forgeryTime    = 30 * time.Second // lasts that long at least,
	forgeryMost    = 10 * time.Minute // and at most that long
	forgeryWindows = 3                // so many bad windows in a row are a finding
)

// marked counts a pin, good or forged.
func (d *doctor) marked(forged bool, now time.Time) {
	f := &d.forgeries
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	if !f.open.Load() || now.Sub(f.began) > forgeryMost {
		f.begin(now, 0)
	}
	f.marks++
	if forged {
		f.forged++
	}
	if f.marks < forgeryMarks || now.Sub(f.began) < forgeryTime {
		return
	}
	share := 100 * f.forged / f.marks
	if share < 20 {
		f.open.Store(false)
		return
	}
	f.begin(now, f.bad+1)
	if f.bad >= forgeryWindows && d.first(forgedPins) {
		d.report(forgedPins, fmt.Sprintf("%d%% of the clients' pins were not made with the secrets of this gateway, for minutes: another gateway makes them, with other secrets", share),
			"give all replicas the same Secrets; if another service of this host or domain has a gateway of its own, give the cookies of the two different names")
	}
}

func (f *forgeries) begin(now time.Time, bad int) {
	f.began, f.marks, f.forged, f.bad = now, 0, 0, bad
	f.open.Store(true)
}

// A crowd looks for many clients behind one address, where the affinity is by address. It
// counts connections, since one client has only a few of them: those of a minute, until
// there are crowdSize. If requests come at the same time, some aren't counted.
type crowd struct {
	client ClientIP

	mu    sync.Mutex
	began time.Time
	conns map[uint64]struct{} // hashes of the peers' addresses and ports
	byKey map[string]int
	said  bool // some peers have sent X-Forwarded-For and aren't trusted
}

const (
	crowdSize = 128
	crowdTime = time.Minute
)

// meet counts the connection of r, whose client has this key.
func (d *doctor) meet(r *http.Request, key string, now time.Time) {
	c := d.crowd
	if key == "" || !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if c.conns == nil || now.Sub(c.began) > crowdTime || len(c.conns) >= crowdSize {
		c.began, c.said = now, false
		c.conns, c.byKey = make(map[uint64]struct{}, crowdSize), make(map[string]int)
	}
	conn := xxhash.Sum64String(r.RemoteAddr)
	if _, known := c.conns[conn]; known {
		return
	}
	c.conns[conn] = struct{}{}
	c.byKey[key]++
	if _, says := r.Header["X-Forwarded-For"]; says && !c.said {
		c.said = !c.client.trusts(peer(r))
	}
	if len(c.conns) < crowdSize {
		return
	}
	for key, n := range c.byKey {
		if n*10 < crowdSize*9 {
			continue
		}
		if _, err := netip.ParsePrefix(key); err != nil || !d.first(oneAddress) {
			return // the key isn't an address, or it is known already
		}
		what := fmt.Sprintf("nearly all clients, by %d of %d connections, come from %s, and the affinity is by address: they all have the same home", n, crowdSize, key)
		cure := "if a proxy or load balancer stands in front, let it send X-Forwarded-For and put its address into ClientIP.Trusted; if the clients share a NAT, choose an affinity by cookie or session"
		if c.said {
			what += "; this peer tells their addresses in X-Forwarded-For, but isn't trusted"
			cure = "put the address of the proxy into ClientIP.Trusted"
		}
		d.report(oneAddress, what, cure, "address", key)
	}
}
