//go:build unix

package chaos

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"
)

// The faults that aren't those of a link.
const (
	faultKill    faultKind = "kill"    // SIGKILL, and a new process a moment later
	faultStop    faultKind = "stop"    // SIGSTOP, and SIGCONT a moment later
	faultDrain   faultKind = "drain"   // drained, killed, started and undrained
	faultGateway faultKind = "restart" // a gateway's SIGTERM, and a new process
	faultRedis   faultKind = "redis"   // killed, and started without its data

	faultSlow faultKind = "slow" // the machine, which nobody has done

	// These disturb nobody.
	faultClosed faultKind = "closed" // from when a drain is known until it is taken back
	faultWeight faultKind = "weight"
	faultJoin   faultKind = "join"
)

const (
	// recovery is how long it takes until all gateways find a backend Up again once the
	// cause of a fault is gone: two good checks and what they may wait for each other.
	recovery = 3 * checkInterval
	// apartFor is how long it may take until gateways hear each other that have lost the
	// bus or have just been started. Limpet promises "within seconds".
	apartFor = 2 * time.Second
	// drainWithin is the time of a drain.
	drainWithin = 1500 * time.Millisecond
	// mostIll is how many backends are in trouble at the same time. Two are always left
	// where clients can go.
	mostIll = 2
)

// An episode is a fault from its beginning to its end, and takes so long at most.
type episode struct {
	kind faultKind
	long time.Duration
	run  func(*schedule, *rand.Rand)
	at   func(*schedule, *rand.Rand, *backend) // instead of run: it needs a backend for itself
}

// A schedule does things to a cluster, in an order that follows from the seed. Its tracks
// go on side by side: processes, networks, and what the gateways need.
type schedule struct {
	*cluster
	until time.Time // no episode lasts longer

	// These are under the cluster's mu.
	free []string // backends to which nothing is done
	ill  int
}

func newSchedule(c *cluster, until time.Time) *schedule {
	return &schedule{cluster: c, until: until, free: slices.Clone(c.joined)}
}

// tracks are the episodes. Those of a track come in random order, all of them before one
// comes twice, but the first of a track is the first and the last the last.
func tracks() [][]episode {
	return [][]episode{
		{
			{kind: faultKill, long: time.Second, at: (*schedule).kill},
			{kind: faultStop, long: 3700 * time.Millisecond, at: (*schedule).stop},
			{kind: faultJoin, long: 300 * time.Millisecond, run: (*schedule).joinOne},
			{kind: faultWeight, long: 700 * time.Millisecond, at: (*schedule).weigh},
			{kind: faultDrain, long: drainWithin + recovery + 500*time.Millisecond, at: (*schedule).roll},
		},
		{
			network(faultPicky, time.Second),
			network(faultReset, 700*time.Millisecond),
			network(faultRefuse, 700*time.Millisecond),
			network(faultHole, 1500*time.Millisecond),
			network(faultSilent, 1500*time.Millisecond),
			network(faultDelay, 700*time.Millisecond),
			network(faultHalf, 200*time.Millisecond),
			network(faultCut, 300*time.Millisecond),
		},
		{
			{kind: faultRedis, long: 7 * time.Second, run: (*schedule).loseRedis},
			{kind: faultGateway, long: 5 * time.Second, run: (*schedule).restartGateway},
		},
	}
}

// run carries out the tracks.
func (s *schedule) run(ctx context.Context, seed uint64) {
	var all sync.WaitGroup
	for i, track := range tracks() {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for ctx.Err() == nil {
				if len(track) > 3 {
					middle := track[1 : len(track)-1]
					random.Shuffle(len(middle), func(i, j int) { middle[i], middle[j] = middle[j], middle[i] })
				}
				began := false
				for _, e := range track {
					began = s.carryOut(e, random) || began
				}
				if !began {
					return
				}
			}
		})
	}
	all.Wait()
}

// carryOut carries out an episode. It returns false if there is no time for it.
func (s *schedule) carryOut(e episode, random *rand.Rand) bool {
	if e.at == nil {
		if time.Now().Add(e.long).After(s.until) {
			return false
		}
		e.run(s, random)
		return true
	}
	ill := 0
	if harm(e.kind) {
		ill = 1
	}
	b := s.take(random, e.long, ill)
	if b == nil {
		return false
	}
	defer s.putBack(b, ill)
	e.at(s, random, b)
	if ill > 0 {
		time.Sleep(recovery)
	}
	return true
}

// take returns a backend to which nothing is done, once there is one and few enough are ill:
// it counts as so many. It returns nil if what is to be done, which is so long, would last
// for too long.
func (s *schedule) take(random *rand.Rand, long time.Duration, ill int) *backend {
	at := random.Uint64()
	for ; time.Now().Add(long).Before(s.until); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		if s.ill+ill <= mostIll && len(s.free) > 0 {
			s.ill += ill
			i := int(at % uint64(len(s.free)))
			id := s.free[i]
			s.free = slices.Delete(s.free, i, i+1)
			s.mu.Unlock()
			return s.backends[id]
		}
		s.mu.Unlock()
	}
	return nil
}

// putBack gives a backend back.
func (s *schedule) putBack(b *backend, ill int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ill -= ill
	s.free = append(s.free, b.id)
	slices.Sort(s.free)
}

// about returns a time of 75 to 125% of d.
func about(random *rand.Rand, d time.Duration) time.Duration {
	return d*3/4 + time.Duration(random.Int64N(int64(d/2)))
}

func (s *schedule) kill(random *rand.Rand, b *backend) {
	wait := about(random, 700*time.Millisecond)
	defer s.history.begin(faultKill, b.id, "", "")()
	b.unplug()
	b.node.Kill()
	time.Sleep(wait)
	s.boot(b.id)
}

func (s *schedule) stop(random *rand.Rand, b *backend) {
	wait := 3300*time.Millisecond + time.Duration(random.Int64N(int64(400*time.Millisecond))) // longer than the bound
	defer s.history.begin(faultStop, b.id, "", "")()
	b.node.Signal(s.t, syscall.SIGSTOP)
	time.Sleep(wait)
	b.node.Signal(s.t, syscall.SIGCONT)
}

// roll restarts a backend as a deploy does: its clients leave before.
func (s *schedule) roll(random *rand.Rand, b *backend) {
	defer s.history.begin(faultDrain, b.id, "", "")()
	s.operate(random, b.id, "drain", `{"within":"`+drainWithin.String()+`"}`)
	open := s.history.begin(faultClosed, b.id, "", "")
	time.Sleep(drainWithin + 200*time.Millisecond)
	b.unplug()
	b.node.Kill()
	s.boot(b.id)
	time.Sleep(recovery)
	open()
	s.operate(random, b.id, "undrain", "")
}

// weigh changes a backend's weight for a moment.
func (s *schedule) weigh(random *rand.Rand, b *backend) {
	defer s.history.begin(faultWeight, b.id, "", "")()
	s.operate(random, b.id, "weight", `{"weight":4}`)
	time.Sleep(about(random, 500*time.Millisecond))
	s.operate(random, b.id, "weight", `{"weight":0}`)
}

// joinOne adds a backend that the gateways don't know yet, if one is left.
func (s *schedule) joinOne(*rand.Rand) {
	for id, b := range s.backends {
		if b.boots > 0 {
			continue
		}
		defer s.history.begin(faultJoin, id, "", "")()
		s.join(id)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free = append(s.free, id)
		slices.Sort(s.free)
		return
	}
}

// network returns the episode of a fault of links: those of one backend to one gateway, or
// to all of them.
func network(kind faultKind, d time.Duration) episode {
	return episode{kind: kind, long: d * 5 / 4, at: func(s *schedule, random *rand.Rand, b *backend) {
		wait, gateway := about(random, d), ""
		if one := random.IntN(2 * len(s.balancer.gateways)); one < len(s.balancer.gateways) && kind != faultPicky {
			gateway = s.balancer.gateways[one].id
		}
		defer s.history.begin(kind, b.id, gateway, "")()
		each := func(fault faultKind) {
			for g, l := range b.links {
				if gateway == "" || gateway == g {
					l.setFault(fault)
				}
			}
		}
		each(kind)
		time.Sleep(wait)
		each("")
	}}
}

// loseRedis kills Redis and starts it again, without what it had. Then the gateways have to
// hear each other again.
func (s *schedule) loseRedis(random *rand.Rand) {
	if s.redis == nil {
		return
	}
	end := s.history.begin(faultRedis, "", "", "")
	s.redis.Kill()
	time.Sleep(about(random, time.Second))
	s.redis.Restart(s.t)
	end()
	time.Sleep(apartFor)
	for _, g := range s.balancer.gateways {
		s.aside(random, g)
	}
}

// aside sets a backend aside for a moment, as one gateway is told: it keeps its clients and
// takes no new ones.
func (s *schedule) aside(random *rand.Rand, g *replica) {
	b := s.take(random, 2*time.Second, 0)
	if b == nil {
		return
	}
	defer s.putBack(b, 0)
	s.operateAt(g, b.id, "drain", "")
	open := s.history.begin(faultClosed, b.id, "", "by "+g.id)
	time.Sleep(1500 * time.Millisecond)
	open()
	s.operateAt(g, b.id, "undrain", "")
}

func (s *schedule) restartGateway(random *rand.Rand) {
	g := s.balancer.gateways[random.IntN(len(s.balancer.gateways))]
	defer s.history.begin(faultGateway, "", g.id, "")()
	p := s.gateways[g.id]
	p.Signal(s.t, syscall.SIGTERM)
	if code := p.End(s.t); code != 0 {
		s.t.Errorf("gateway %s ended with code %d", g.id, code)
	}
	s.startGateway(g)
	s.awaitReady(g)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.joined { // one may have joined while the process started
		s.call(g, http.MethodPost, "/join?backend="+url.QueryEscape(s.spec(id, g.id)), "", nil) // else it is there
	}
}
