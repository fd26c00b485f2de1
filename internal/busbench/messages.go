//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/busbench/role"
	"github.com/limpet-go/limpet/internal/meter"
)

// topics are that of one subscriber and that of several. node/role.js knows them, too.
var topics = []string{one, all}

const one, all = "one", "all"

// A crew is a peer at work: a Redis, a publisher and subscribers.
type crew struct {
	*peer
	redis       *meter.Process
	publisher   *part
	subscribers map[string][]*part // of each topic
	failed      bool
}

// A load is what a case does.
type load struct {
	name       string
	topic      string
	size       int
	publishers int
	paced      bool
}

// loads are all cases of messages.
func (b *bench) loads() (loads []load) {
	for _, size := range b.sizes {
		for _, topic := range topics {
			nodes := 1
			if topic == all {
				nodes = b.nodes
			}
			for _, n := range []int{1, b.many} {
				loads = append(loads, load{fmt.Sprintf("%d B, %s, %s", size, count(n, "publisher"), count(nodes, "node")), topic, size, n, false})
			}
		}
		loads = append(loads, load{fmt.Sprintf("%d B, %d a second, 1 node", size, b.rate), one, size, 1, true})
	}
	return loads
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// messages measures all peers without members.
func (b *bench) messages(ctx context.Context, peers []*peer, r *report) error {
	var crews []*crew
	defer func() {
		for _, c := range crews {
			c.stop()
		}
	}()
	for _, p := range peers {
		if p.hub != nil {
			continue
		}
		progress("starting %s", p.name)
		c := &crew{peer: p}
		crews = append(crews, c)
		if err := c.start(ctx, b); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			c.fail(r, err)
		}
	}
	if len(crews) == 0 {
		return nil
	}
	for round := range 1 + r.rounds {
		for _, l := range b.loads() {
			for i := range crews {
				c := crews[(round+i)%len(crews)] // not always the same one first
				if c.failed {
					continue
				}
				progress("round %d of %d: %s, %s", round, r.rounds, l.name, c.name)
				m, err := b.measure(c, l, round == 0)
				switch {
				case ctx.Err() != nil:
					return ctx.Err()
				case err != nil:
					c.fail(r, fmt.Errorf("%s: %w", l.name, err))
				case round > 0:
					r.add(round, l.name, c.peer, m)
				}
			}
		}
	}
	return nil
}

// fail says that a peer can't be measured any more. The others can nevertheless.
func (c *crew) fail(r *report, err error) {
	c.failed = true
	r.failures = append(r.failures, fmt.Sprintf("%s: %v", c.name, err))
}

// start starts all processes of a peer, and waits until they hear each other.
func (c *crew) start(ctx context.Context, b *bench) (err error) {
	var addr string
	if c.redis, addr, err = startRedis(b.dir); err != nil {
		return err
	}
	if err := listening(ctx, addr); err != nil {
		return err
	}
	var starting sync.WaitGroup
	var publishing error
	starting.Go(func() { c.publisher, publishing = c.peer.start(addr, "publisher") })
	subscribers, errs := make([]*part, 1+b.nodes), make([]error, 1+b.nodes)
	for i := range subscribers {
		topic := all
		if i == 0 {
			topic = one
		}
		starting.Go(func() { subscribers[i], errs[i] = c.peer.start(addr, "subscriber", topic) })
	}
	starting.Wait()
	c.subscribers = map[string][]*part{one: subscribers[:1], all: subscribers[1:]}
	if err := errors.Join(append(errs, publishing)...); err != nil {
		return err
	}
	for _, topic := range topics {
		if err := c.meet(ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

// listening waits until something listens there.
func listening(ctx context.Context, addr string) error {
	for end := time.Now().Add(role.Patience); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// meet publishes until all subscribers of a topic have heard one message after the other,
// and nothing is under way.
func (c *crew) meet(ctx context.Context, topic string) error {
	end, wait := time.Now().Add(3*role.Patience), 100*time.Millisecond
	for inTurn := 0; inTurn < 2; inTurn++ {
		if _, err := c.publisher.ask(role.Command{Publish: 1, Topic: topic, Publishers: 1, Size: 64}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		for _, s := range c.subscribers[topic] {
			r, err := s.ask(role.Command{})
			if err != nil {
				return err
			}
			if r.Got != s.total+1 {
				inTurn = -1
			}
			s.total = r.Got
		}
		if inTurn < 0 {
			wait = min(2*wait, 3*time.Second)
		}
		if time.Now().After(end) {
			return errors.New("messages don't arrive in time")
		}
	}
	return nil
}

// stop ends all processes.
func (c *crew) stop() {
	for _, s := range slices.Concat(c.subscribers[one], c.subscribers[all]) {
		if s != nil {
			s.Stop()
		}
	}
	if c.publisher != nil {
		c.publisher.Stop()
	}
	if c.redis != nil {
		c.redis.Stop()
	}
}

// measure measures one case, which is short if it is to warm up.
func (b *bench) measure(c *crew, l load, warm bool) (metrics, error) {
	time := b.time.Seconds()
	if warm {
		time /= 4
	}
	if l.paced {
		return c.send(l, max(10, int(float64(b.rate)*2*time)), b.rate)
	}
	m, err := c.send(l, b.least, 0) // tells how many fit into the time
	if err != nil {
		return nil, err
	}
	fits := int(m[perSecond] * time)
	return c.send(l, min(max(fits, b.least), queue), 0)
}

// send publishes n messages, waits until all subscribers have them, and returns what
// that took.
func (c *crew) send(l load, n, rate int) (metrics, error) {
	subscribers := c.subscribers[l.topic]
	before, err := c.cpu(subscribers)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if _, err := c.publisher.ask(role.Command{Publish: n, Topic: l.topic, Publishers: l.publishers, Size: l.size, Rate: rate}); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	var times []time.Duration
	for _, s := range subscribers {
		s.total += n
		r, err := s.ask(role.Command{Await: s.total})
		if err != nil {
			return nil, fmt.Errorf("subscriber: %w", err)
		}
		for _, t := range r.Times {
			times = append(times, time.Duration(t))
		}
		if r.Got != s.total {
			return nil, fmt.Errorf("a subscriber got %d messages of %d", n+r.Got-s.total, n)
		}
	}
	took := time.Since(began)
	after, err := c.cpu(subscribers)
	if err != nil {
		return nil, err
	}
	each := func(i, messages int) float64 {
		return float64((after[i] - before[i]).Nanoseconds()) / 1e3 / float64(messages)
	}
	m := metrics{
		publisherCPU: each(0, n), subscriberCPU: each(1, n*len(subscribers)), redisCPU: each(2, n),
		perSecond: float64(n) / took.Seconds(),
	}
	if slices.Sort(times); len(times) > 0 {
		m[p50] = float64(times[len(times)/2].Nanoseconds()) / 1e3
		m[p99] = float64(times[len(times)*99/100].Nanoseconds()) / 1e3
		delete(m, perSecond)
	}
	return m, nil
}

// cpu returns the processor time of the publisher, of all of these subscribers, and of Redis.
func (c *crew) cpu(subscribers []*part) (times [3]time.Duration, err error) {
	if times[0], err = c.publisher.CPU(); err != nil {
		return times, err
	}
	for _, s := range subscribers {
		d, err := s.CPU()
		if err != nil {
			return times, err
		}
		times[1] += d
	}
	times[2], err = c.redis.CPU()
	return times, err
}
