package bus

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A feed is what the subscriptions of a [Redis] share: which topics are wanted,
// and the connections on which they are subscribed. It lives from the first
// subscription to the last one.
type feed struct {
	bus   *Redis
	users int // under bus.mu
	ctx   context.Context
	stop  context.CancelFunc
	wake  chan struct{} // there are topics that have no link

	mu       sync.Mutex
	topics   map[string]*redisTopic // by channel
	links    map[*redis.Client]*redisLink
	homeless []*redisTopic
}

// A redisTopic is a topic that is wanted, or was a moment ago. It is under
// feed.mu.
type redisTopic struct {
	name, channel string
	subs          map[*redisSubscription]bool // true: a Gap is due once the topic is live
	live          bool                        // Redis has confirmed it
	changed       chan struct{}               // closed when live becomes true
	err           error                       // why it isn't live, if there was an error

	link    *redisLink // nil: homeless
	stay    int        // counts the links it was on, so that an old one's answers are told apart
	sent    bool       // the last command on this link was to subscribe
	pending int        // commands on this link that aren't answered
	after   time.Time  // when to find it a link
}

func newFeed(r *Redis) *feed {
	f := &feed{bus: r, wake: make(chan struct{}, 1), topics: map[string]*redisTopic{}, links: map[*redis.Client]*redisLink{}}
	f.ctx, f.stop = context.WithCancel(context.Background())
	go f.house() // until stop
	return f
}

// want puts s on a topic, unless it is there already. f.mu is held.
func (f *feed) want(name string, s *redisSubscription) *redisTopic {
	channel := f.bus.Prefix + name
	t := f.topics[channel]
	if t == nil {
		t = &redisTopic{name: name, channel: channel, subs: map[*redisSubscription]bool{s: false}, changed: make(chan struct{})}
		f.topics[channel] = t
		f.unhouse(t, 0)
	} else if _, ok := t.subs[s]; !ok {
		t.subs[s] = false
		if len(t.subs) == 1 && t.link != nil { // it was about to go
			t.link.todo(t)
		}
	}
	return t
}

// drop takes s off t. f.mu is held.
func (f *feed) drop(t *redisTopic, s *redisSubscription) {
	delete(t.subs, s)
	if len(t.subs) > 0 {
		return
	}
	if t.link == nil {
		delete(f.topics, t.channel)
		return
	}
	t.link.todo(t)
}

// quiet makes t one that isn't live. f.mu is held.
func (f *feed) quiet(t *redisTopic) {
	if t.live {
		t.live, t.changed = false, make(chan struct{})
	}
}

// unhouse takes t off its link, to find it another. f.mu is held.
func (f *feed) unhouse(t *redisTopic, pause time.Duration) {
	if t.link != nil {
		delete(t.link.topics, t.channel)
	}
	if t.live {
		for s := range t.subs {
			t.subs[s] = true
		}
		f.quiet(t)
	}
	t.link, t.sent, t.pending = nil, false, 0
	t.stay++
	if len(t.subs) == 0 {
		delete(f.topics, t.channel)
		return
	}
	t.after = time.Now().Add(pause)
	f.homeless = append(f.homeless, t)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// house finds links for topics that have none.
func (f *feed) house() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.wake:
		case <-timer.C:
		case <-f.ctx.Done():
			return
		}
		if !f.houseAll() {
			timer.Reset(retryPause)
		}
	}
}

// houseAll returns false if some are left.
func (f *feed) houseAll() bool {
	f.mu.Lock()
	due, now := []*redisTopic(nil), time.Now()
	f.homeless = slices.DeleteFunc(f.homeless, func(t *redisTopic) bool {
		if t.after.After(now) {
			return false
		}
		due = append(due, t)
		return true
	})
	f.mu.Unlock()

	nodes := make([]*redis.Client, len(due))
	var err error
	for i, t := range due {
		if nodes[i], err = f.node(t.channel); err != nil {
			break // it concerns all of them
		}
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	for i, t := range due {
		switch {
		case f.topics[t.channel] != t: // nobody wants it any more
		case err != nil:
			t.err = err
			f.unhouse(t, retryPause)
		default:
			f.move(t, nodes[i])
		}
	}
	return len(f.homeless) == 0
}

// node returns the primary that has a channel. Nil means that any node will do.
func (f *feed) node(channel string) (*redis.Client, error) {
	c, ok := f.bus.Client.(interface {
		MasterForKey(context.Context, string) (*redis.Client, error)
	})
	if !ok || !f.bus.Sharded {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(f.ctx, deadAfter)
	defer cancel()
	return c.MasterForKey(ctx, channel)
}

// move puts t on the link to a node. f.mu is held.
func (f *feed) move(t *redisTopic, node *redis.Client) {
	l := f.links[node]
	if l == nil {
		l = &redisLink{feed: f, node: node, wake: make(chan struct{}, 1), topics: map[string]*redisTopic{}}
		f.links[node] = l
		go l.run() // until it has no topics left, or stop
	}
	t.link = l
	l.topics[t.channel] = t
	l.todo(t)
}

// deliver hands a message to the subscriptions.
func (f *feed) deliver(l *redisLink, channel, payload string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topics[channel]
	if t == nil || t.link != l {
		return
	}
	it := item{Message: Message{Topic: t.name, Data: []byte(payload)}}
	for s := range t.subs {
		f.push(s, it)
	}
}

// push puts an item into a subscription's queue. f.mu is held.
func (f *feed) push(s *redisSubscription, it item) {
	if !s.queue.push(it) {
		s.detach()
	}
}

// gaps tells the subscriptions of topics that are live again. f.mu is held.
func (f *feed) gaps(topics []*redisTopic) {
	due := map[*redisSubscription]*Gap{}
	for _, t := range topics {
		if !t.live {
			continue
		}
		for s, owed := range t.subs {
			if !owed {
				continue
			}
			t.subs[s] = false
			if due[s] == nil {
				due[s] = &Gap{Lost: -1, Err: cmp.Or(t.err, errLate)}
			}
			due[s].Topics = append(due[s].Topics, t.name)
		}
		t.err = nil // it is told
	}
	for s, gap := range due {
		slices.Sort(gap.Topics)
		f.push(s, item{gap: gap})
	}
}
