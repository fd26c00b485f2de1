//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/internal/meter"
)

// sizes say how much a case does.
type sizes struct {
	Time     time.Duration // that is measured, at most; and half of it before
	Settle   time.Duration // before memory is read
	Clients  int           // connections that are busy at once
	Quiet    int           // tunnels of the paced case
	Rate     int           // messages a second of it
	Idle     int           // tunnels without traffic
	Members  int           // tunnels of the broadcast
	Messages int           // broadcasts
	Polls    int           // that wait
	Hold     time.Duration // how long each of them waits, in the mean
}

// A result is what one trial measured, or the median of several.
type result struct {
	Case       string        `json:"case"`
	Peer       string        `json:"peer"`
	Round      int           `json:"round,omitempty"` // from 1
	Operations int           `json:"operations"`
	Errors     int           `json:"errors"`
	Error      string        `json:"error,omitempty"`    // the first one
	CPU        float64       `json:"cpuMicroseconds"`    // of the gateway, an operation
	Ratio      float64       `json:"cpuRatio,omitempty"` // of CPU to nginx's, in medians
	Busy       float64       `json:"busy"`               // part of the time that the gateway's processor worked
	Throughput float64       `json:"perSecond"`
	P50        time.Duration `json:"p50Nanoseconds"`
	P99        time.Duration `json:"p99Nanoseconds"`
	Memory     float64       `json:"peakBytes"`                    // proportional set size
	Opened     float64       `json:"bytesPerTunnel,omitempty"`     // growth of it over the idle tunnels
	Used       float64       `json:"bytesPerTunnelOnce,omitempty"` // the same later
}

// A trial is one case at one freshly started gateway.
type trial struct {
	*load
	sizes
	gateway *meter.Process
	result  *result
}

// try starts a gateway and measures a case. Errors of single operations are in
// the result.
func (b *bench) try(ctx context.Context, p *peer, c *scene, backends []string) (result, error) {
	r := result{Case: c.name, Peer: p.name}
	gateway, port, err := p.run(ctx, site{dir: b.dir, backends: backends, tls: c.secure()}, b.core)
	if err != nil {
		return r, err
	}
	defer gateway.Stop()
	l, err := newLoad(ctx, port, c.secure())
	if err != nil {
		return r, err
	}
	defer l.close()
	t := &trial{load: l, sizes: b.sizes, gateway: gateway, result: &r}
	if err := c.play(t); err != nil {
		gateway.Stop()
		return r, fmt.Errorf("%s at %s: %w\n%s", c.name, p.name, err, tail(gateway.Said.Bytes()))
	}
	r.Errors = l.errors
	if l.first != nil {
		r.Error = l.first.Error()
	}
	return r, nil
}

func tail(said []byte) []byte { return said[max(0, len(said)-1000):] }

// warmed measures after half the time without measuring.
func (t *trial) warmed(start func()) error {
	if err := t.drive(t.Time/2, start); err != nil {
		return err
	}
	return t.measure(t.Time, start)
}

// measure drives operations as drive does, and writes down what they cost.
func (t *trial) measure(d time.Duration, start func()) error {
	t.times = t.times[:0] // what warmed it up doesn't count, its errors do
	began := time.Now()
	before, err := t.gateway.CPU()
	if err != nil {
		return err
	}
	peak := watch(t.gateway)
	if err := t.drive(d, start); err != nil {
		peak()
		return err
	}
	took := time.Since(began)
	after, err := t.gateway.CPU()
	memory, memoryErr := peak()
	if err == nil {
		err = memoryErr
	}
	if err != nil {
		return err
	}
	r, n := t.result, float64(max(1, len(t.times)))
	r.Operations = len(t.times)
	r.CPU = float64((after - before).Nanoseconds()) / 1e3 / n
	r.Busy = (after - before).Seconds() / took.Seconds()
	r.Throughput = n / took.Seconds()
	r.P50, r.P99 = percentile(t.times, 0.5), percentile(t.times, 0.99)
	r.Memory = float64(memory)
	return nil
}

// watch follows the memory until peak is called, which returns the most.
func watch(p *meter.Process) (peak func() (int64, error)) {
	var most int64
	var failed error
	stop, stopped := make(chan struct{}), make(chan struct{})
	look := func() {
		now, err := p.Memory()
		if most = max(most, now); err != nil {
			failed = err
		}
	}
	go func() {
		defer close(stopped)
		for {
			look()
			select {
			case <-stop:
				look()
				return
			case <-time.After(250 * time.Millisecond):
			}
		}
	}()
	return func() (int64, error) {
		close(stop)
		<-stopped
		return most, failed
	}
}
