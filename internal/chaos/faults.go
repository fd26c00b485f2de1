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
	drainWithin = 2 * time.Second
	// mostIll is how many backends are in trouble at the same time. Two are always left
	// where clients can go.
	mostIll = 2
)

// An episode is a fault from its beginning to its end, and takes about so long.
type episode struct {
	kind faultKind
	take time.Duration
	run  func(*schedule, *rand.Rand)
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
			{faultKill, 2500 * time.Millisecond, (*schedule).kill},
			{faultStop, 4 * time.Second, (*schedule).stop},
			{faultJoin, 300 * time.Millisecond, (*schedule).joinOne},
			{faultWeight, 800 * time.Millisecond, (*schedule).weigh},
			{faultDrain, 5 * time.Second, (*schedule).roll},
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
			{faultRedis, 7 * time.Second, (*schedule).loseRedis},
			{faultGateway, 5 * time.Second, (*schedule).restartGateway},
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
					if time.Now().Add(e.take).Before(s.until) {
						e.run(s, random)
						began = true
					}
				}
				if !began {
					return
				}
			}
		})
	}
	all.Wait()
}

// take returns a backend to which nothing is done, once there is one and few enough are
// in trouble.
func (s *schedule) take(random *rand.Rand) *backend {
	at := random.Uint64()
	for ; ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		if s.ill < mostIll && len(s.free) > 0 {
			s.ill++
			i := int(at % uint64(len(s.free)))
			id := s.free[i]
			s.free = slices.Delete(s.free, i, i+1)
			s.mu.Unlock()
			return s.backends[id]
		}
		s.mu.Unlock()
	}
}

// give gives a backend back once it has recovered.
func (s *schedule) give(b *backend) {
	time.Sleep(recovery)
	s.putBack(b)
}

func (s *schedule) putBack(b *backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ill--
	s.free = append(s.free, b.id)
	slices.Sort(s.free)
}

// about returns a time of 75 to 125% of d.
func about(random *rand.Rand, d time.Duration) time.Duration {
	return d*3/4 + time.Duration(random.Int64N(int64(d/2)))
}

func (s *schedule) kill(random *rand.Rand) {
	b, wait := s.take(random), about(random, 700*time.Millisecond)
	defer s.give(b)
	defer s.history.begin(faultKill, b.id, "", "")()
	b.unplug()
	b.node.Kill()
	time.Sleep(wait)
	s.boot(b.id)
}

func (s *schedule) stop(random *rand.Rand) {
	b, wait := s.take(random), about(random, 2*time.Second)
	defer s.give(b)
	defer s.history.begin(faultStop, b.id, "", "")()
	b.node.Signal(s.t, syscall.SIGSTOP)
	time.Sleep(wait)
	b.node.Signal(s.t, syscall.SIGCONT)
}

// roll restarts a backend as a deploy does: its clients leave before.
func (s *schedule) roll(random *rand.Rand) {
	b := s.take(random)
	defer s.give(b)
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
func (s *schedule) weigh(random *rand.Rand) {
	b := s.take(random)
	defer s.putBack(b)
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
	return episode{kind, d*5/4 + recovery, func(s *schedule, random *rand.Rand) {
		b, wait, gateway := s.take(random), about(random, d), ""
		if one := random.IntN(2 * len(s.balancer.gateways)); one < len(s.balancer.gateways) && kind != faultPicky {
			gateway = s.balancer.gateways[one].id
		}
		defer s.give(b)
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
	b := s.take(random)
	defer s.putBack(b)
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
