package bus

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A feed is what the subscriptions of a [Redis] share: the topics that are wanted, and
// the links, which are the connections on which they are subscribed to. It lives from
// the first subscription to the last one.
//
// Goroutines: house finds a link for each topic that has none. Each link has a reader
// and a writer.
type feed struct {
	bus   *Redis
	users int // number of subscriptions; under bus.mu
	ctx   context.Context
	stop  context.CancelFunc
	wake  chan struct{} // has a value when some topics have no link

	mu       sync.Mutex
	topics   map[string]*redisTopic       // by channel
	links    map[*redis.Client]*redisLink // by node of a Cluster; nil is the bus' Client
	homeless []*redisTopic                // those without a link
	live     int                          // number of topics that are live
}

// A redisTopic is a topic that is wanted, or was a moment ago. All of it is under
// feed.mu. Its states:
//
//	link  sent   live   what it is                         who moves it on
//	----  -----  -----  ---------------------------------  ----------------------------------
//	nil   false  false  homeless                           house, by feed.move: to a link
//	set   false  false  to be subscribed to                the writer, by link.take
//	set   true   false  SUBSCRIBE sent, not confirmed      the reader, by link.answer
//	set   true   true   live: messages are delivered       the writer, by link.take, once subs
//	                                                       is empty
//	set   false  false  UNSUBSCRIBE sent; forgotten when   the reader, by link.answer; or back
//	                    it is answered                     to the third if it is wanted again
//
// From each of them feed.unhouse leads back to homeless: when the link breaks, when
// Redis refuses the topic, and when its slot moves. Subscriptions of a topic that was
// live are then due a Gap, which they get when it is live again.
type redisTopic struct {
	name, channel string
	subs          map[*redisSubscription]bool // who wants it; true if a Gap is due once it is live
	live          bool                        // Redis has confirmed the subscription
	changed       chan struct{}               // closed when live becomes true, and then replaced
	err           error                       // the last error that kept it from being live

	link    *redisLink // nil if it is homeless
	stay    int        // number of links that it has left: tells an answer of an old one apart
	sent    bool       // the last command for it on this link was to subscribe
	pending int        // number of commands for it on this link that aren't answered
	after   time.Time  // if it is homeless: when to find a link for it
	alone   bool       // it was refused together with others: it isn't subscribed to with others again
}

func newFeed(r *Redis) *feed {
	f := &feed{bus: r, wake: make(chan struct{}, 1), topics: map[string]*redisTopic{}, links: map[*redis.Client]*redisLink{}}
	f.ctx, f.stop = context.WithCancel(context.Background())
	go f.house() // ends with stop
	return f
}

// want subscribes s to a topic, unless it is already. f.mu is held.
func (f *feed) want(name string, s *redisSubscription) *redisTopic {
	channel := f.bus.Prefix + name
	t := f.topics[channel]
	if t == nil {
		t = &redisTopic{name: name, channel: channel, subs: map[*redisSubscription]bool{s: false}, changed: make(chan struct{})}
		f.topics[channel] = t
		if f.bus.Sharded {
			f.unhouse(t, 0)
		} else {
			f.move(t, nil) // to the only link that there is: house would do nothing else
		}
	} else if _, ok := t.subs[s]; !ok {
		t.subs[s] = false
		if len(t.subs) == 1 && t.link != nil { // it was about to be unsubscribed
			t.link.todo(t)
		}
	}
	return t
}

// drop ends the subscription of s to t. f.mu is held.
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

// quiet notes that t isn't live, or not any more. f.mu is held.
func (f *feed) quiet(t *redisTopic) {
	if t.live {
		t.live, t.changed = false, make(chan struct{})
		f.live--
	}
}

// unhouse takes t off its link, and makes house find another one for it after a pause.
// A topic that nobody wants is forgotten. f.mu is held.
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

// house finds links for topics that have none, until stop.
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

// houseAll finds links for the homeless topics that are due. It returns false if some
// topics are homeless still.
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
			break // the state of the Cluster isn't known: that concerns all of them
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

// node returns the primary that has a channel, or nil if any node will do.
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

// move puts t on the link to a node, which is made if there is none. f.mu is held.
func (f *feed) move(t *redisTopic, node *redis.Client) {
	l := f.links[node]
	if l == nil {
		l = &redisLink{feed: f, node: node, wake: make(chan struct{}, 1), topics: map[string]*redisTopic{}}
		f.links[node] = l
		go l.run() // ends when it has no topics left, or with stop
	}
	t.link = l
	l.topics[t.channel] = t
	l.todo(t)
}

// deliver puts a message from a link into the queues of the topic's subscriptions. A
// message from a link that the topic has left is dropped: a Gap is due for it.
func (f *feed) deliver(l *redisLink, channel, payload string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topics[channel]
	if t == nil || t.link != l {
		return
	}
	for _, owed := range t.subs {
		if owed { // the Gap stands before what follows it
			f.gaps(l.back)
			l.back = nil
			break
		}
	}
	it := item{Message: Message{Topic: t.name, Data: []byte(payload)}}
	for s, owed := range t.subs {
		if owed {
			continue // the topic isn't live yet: the Gap is still to come
		}
		f.bus.counts.delivered.Add(1)
		f.push(s, it)
	}
}

// push puts an item into a subscription's queue. If that closes the subscription, it is
// taken off its topics. f.mu is held.
func (f *feed) push(s *redisSubscription, it item) {
	if !s.queue.push(it) {
		s.detach()
	}
}

// gaps puts the Gaps that are due for topics into the queues of their subscriptions: one
// for each subscription, with all of these topics that it has. f.mu is held.
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
		t.err = nil // the Gaps hold it
	}
	f.bus.counts.gaps.Add(int64(len(due)))
	for s, gap := range due {
		slices.Sort(gap.Topics)
		f.push(s, item{gap: gap})
	}
}
