package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Options are the settings of a Collector. The zero value, and nil, are good defaults.
type Options struct {
	// Long reports whether the time that a request took says nothing about how fast its
	// backend is, so that it is kept out of the histograms of latency. It is asked about
	// the answers of backends that don't count as long already; see the documentation of
	// the package. It must return quickly and keep nothing of rec. nil: no others.
	Long func(rec *limpet.Record) bool

	// Store, Bus, Hub, Limit and Origin are those whose metrics are collected together with the
	// gateway's. nil: none. [Bus] and [Hub] collect those of a service without a gateway, or
	// with several.
	Store *affinity.Redis
	Bus   interface{ Stats() bus.Stats } // a *bus.Redis, *bus.Streams or *bus.Memory
	Hub   *hub.Hub

	Limit  *limpet.Limit
	Origin *limpet.Origin
}

// A Collector observes a gateway, and is a [prometheus.Collector] of what it has seen. Its
// methods may be called concurrently.
type Collector struct {
	gateway *limpet.Gateway
	opts    Options
	stop    func()

	*families
	backends *backends
	own      ownAnswers
	tunnels  prometheus.Histogram
	parts    []prometheus.Collector // of Options.Bus and Options.Hub
}

// New returns a collector that observes gateway from now on. To register two of them, for
// two gateways of one process, give each a label of its own:
//
//	registry := prometheus.WrapRegistererWith(prometheus.Labels{"gateway": "chat"}, prometheus.DefaultRegisterer)
//	registry.MustRegister(metrics.New(chat, nil))
func New(gateway *limpet.Gateway, opts *Options) *Collector {
	c := &Collector{gateway: gateway, families: newFamilies()}
	if opts != nil {
		c.opts = *opts
	}
	c.backends = newBackends(gateway.Pool())
	c.tunnels = prometheus.NewHistogram(tunnelDuration)
	if c.opts.Bus != nil {
		c.parts = append(c.parts, Bus(c.opts.Bus))
	}
	if c.opts.Hub != nil {
		c.parts = append(c.parts, Hub(c.opts.Hub))
	}
	unobserve := gateway.Observe(limpet.Observer{Request: c.request, Closed: c.closed})
	unwatch := gateway.Pool().OnChange(c.changed)
	c.stop = func() { unobserve(); unwatch() }
	return c
}

// Stop ends the observation of the gateway. A collector is stopped after it was
// unregistered, if the gateway or its pool goes on.
func (c *Collector) Stop() { c.stop() }

// request counts a request that has ended, or has become a tunnel.
func (c *Collector) request(rec *limpet.Record) {
	b := c.backends.of(rec.Backend)
	answered := rec.Source == limpet.SourceBackend
	if answered {
		b.answers[class(rec.Status)].Add(1)
		if i := outcome(rec.Outcome); i >= 0 {
			b.pins[i].Add(1)
		}
		if !rec.Broken && !c.long(rec) {
			b.duration.Observe(rec.Duration.Seconds())
			b.firstByte.Observe(rec.FirstByte.Seconds())
		}
	} else {
		c.own.count(rec)
	}
	switch {
	case rec.Tunnel:
		b.opened.Add(1)
	case rec.Left, rec.Broken && limpet.StatusCode(rec.Err) < http.StatusInternalServerError: // an upload that is too long, say
		b.aborts[byClient].Add(1)
	case rec.Broken:
		b.aborts[byBackend].Add(1)
	}
	if rec.Received > 0 {
		b.received.Add(rec.Received)
	}
	if rec.Sent > 0 && answered {
		b.sent.Add(rec.Sent)
	}
	if rec.UnknownSession {
		b.unknown.Add(1)
	}
	if len(rec.Attempts) > 1 || !answered {
		c.attempts(rec.Attempts)
	}
}

// attempts counts the attempts of a request that failed, and those that followed them.
func (c *Collector) attempts(attempts []limpet.Attempt) {
	for i, a := range attempts {
		if a.Err == nil {
			continue
		}
		b := c.backends.of(a.Backend)
		if cause := failure(a.Err); cause >= 0 {
			b.failures[cause].Add(1)
		}
		if i+1 < len(attempts) {
			b.retries.Add(1)
			if attempts[i+1].Backend != a.Backend {
				b.redispatches.Add(1)
			}
		}
	}
}

// closed counts a tunnel that has ended.
func (c *Collector) closed(rec *limpet.TunnelRecord) {
	b := c.backends.of(rec.Backend)
	b.closed[min(rec.By, sides-1)][closeCode(rec.Code)].Add(1)
	b.bytes[toClient].Add(rec.ToClient)
	b.bytes[toBackend].Add(rec.ToBackend)
	b.messages[toClient].Add(rec.MessagesToClient)
	b.messages[toBackend].Add(rec.MessagesToBackend)
	c.tunnels.Observe(rec.Summary.Duration.Seconds())
}

// changed counts a change of a backend's state.
func (c *Collector) changed(change balancer.Change) {
	if change.From != change.To && !change.Removed {
		c.backends.of(change.Backend).changes[change.To].Add(1)
	}
}
