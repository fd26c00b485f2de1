package balancer

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

const (
	maxShares = 64   // how many groups can have a share
	maxFormer = 1024 // of how many removed backends the group is remembered
)

// SetGroup makes the backend a member of a group: the backends that run one version of a
// service, say, such as stable or canary. [Pool.SetShares] says how many of the new clients
// a group gets. The name has the characters of an ID; with "" the backend is in no group,
// as at first, and those in none count as one group with that name. It is an error if the
// name is none, or if the backend belongs to a pool already. SetGroup is a part of making
// the backend: it must not run at the same time as another use of it.
func (b *Backend) SetGroup(name string) error {
	switch {
	case name != "" && !validID(name):
		return fmt.Errorf("balancer: backend %s: its group%s: want 1 to %d of A-Z a-z 0-9 . _ : -", b.id, quoted(name), maxID)
	case b.pool.Load() != nil:
		return fmt.Errorf("balancer: backend %s: its group can't change once it is in a pool: add a new Backend with the same ID in its place", b.id)
	}
	b.group = name
	return nil
}

// Group returns the name of the backend's group, "" if it is in none.
func (b *Backend) Group() string { return b.group }

// SetShares sets which share of the new clients each group gets: with 1 for canary and 99
// for stable, canary gets one in a hundred. Each share is from 0 to [MaxWeight], and at
// least one is above 0. Within a group the weights of its backends count as before, and
// those of groups aren't compared with each other. The name "" stands for the backends in no
// group. With an empty map, as at first, groups don't matter.
//
// A client that has a home stays there, whatever the shares. When its home can't keep it,
// the client gets a new home in the same group, as long as that has a backend which is Up.
// So a client doesn't go back and forth between versions. The pool knows the group of a home
// by the backend's ID, and remembers that of the last 1,024 backends that were removed. A
// process that starts after a backend was removed doesn't know, and takes its clients for
// new ones.
//
// A group whose share is 0 or which isn't named keeps its clients and gets no new ones. To
// roll back, set the share to 0 and drain the group's backends: their clients go to the
// other groups. A group counts only while it has a backend that is Up. When no group with a
// share above 0 has one, new clients go to any backend that is Up. SetShares logs a warning
// if no backend of the pool is in such a group, as with a typo.
//
// The group of a new client with a key follows from the key, by weighted rendezvous hashing,
// so that all replicas agree. When a group's share rises, the keys that it has stay there,
// and it gets only so many more as the new share needs. That is also how clients move that
// an affinity such as a hash places anew with each request. New clients without a key are
// dealt out so that the shares come out almost exactly.
//
// Gateways on a bus agree on the shares, as on other decisions of the operator: the latest
// counts. What is set before the gateway was made is the configuration of this process, and
// no decision for others. It is an error if a name or a share is wrong, if all shares are 0,
// or if there are more than 64.
func (p *Pool) SetShares(shares map[string]int) error {
	shares = maps.Clone(shares)
	if err := validShares(shares); err != nil {
		return err
	}
	p.mu.Lock()
	p.shares = shares
	s := p.now.Load()
	p.publish(s.byID, s.all)
	listeners := p.shareListeners
	p.mu.Unlock()
	p.log().Info("shares of new clients changed", "shares", shares)
	if groups, none := shareless(s.all, shares); none {
		p.log().Warn("no backend is in a group that has a share, so that new clients go to any backend", "shares", shares, "groups", groups)
	}
	for _, f := range listeners {
		(*f)()
	}
	return nil
}

// shareless reports whether none of the backends is in a group with a share above 0, although
// there are shares, and returns the names of the groups that they are in.
func shareless(backends []*Backend, shares map[string]int) (groups []string, none bool) {
	for _, b := range backends {
		if shares[b.group] > 0 {
			return nil, false
		}
		groups = append(groups, b.group)
	}
	slices.Sort(groups)
	return slices.Compact(groups), len(groups) > 0 && len(shares) > 0
}

// Shares returns what [Pool.SetShares] has set. The caller may change the map.
func (p *Pool) Shares() map[string]int { return maps.Clone(p.now.Load().shares) }

// OnShares calls f after each [Pool.SetShares] from now on, until stop is called. The
// goroutine that has set the shares calls it, without a lock.
func (p *Pool) OnShares(f func()) (stop func()) {
	return listen(p, &p.shareListeners, f)
}

func validShares(shares map[string]int) error {
	if len(shares) > maxShares {
		return fmt.Errorf("balancer: shares of %d groups: want %d at most", len(shares), maxShares)
	}
	sum := 0
	for name, share := range shares {
		if name != "" && !validID(name) {
			return fmt.Errorf("balancer: share of the group%s: want a name of 1 to %d of A-Z a-z 0-9 . _ : -", quoted(name), maxID)
		}
		if share < 0 || share > MaxWeight {
			return fmt.Errorf("balancer: share of the group %q: %d is not within 0 and %d", name, share, MaxWeight)
		}
		sum += share
	}
	if sum == 0 && len(shares) > 0 {
		return errors.New("balancer: all shares are 0, so that no group gets new clients: give one a share, such as 100 for stable, or set an empty map so that groups don't matter")
	}
	return nil
}

// A group is the candidates with the same name of a group.
type group struct {
	name  string
	seed  uint64 // of its scores in rendezvous hashing
	share int
	candidates
}

// newGroups returns the groups of these backends, nil if groups don't matter.
func newGroups(backends []*Backend, shares map[string]int) []group {
	if len(shares) == 0 {
		return nil
	}
	members := make(map[string][]*Backend)
	var names []string
	for _, b := range backends {
		if members[b.group] == nil {
			names = append(names, b.group)
		}
		members[b.group] = append(members[b.group], b)
	}
	groups := make([]group, len(names))
	for i, name := range names {
		// No ID has a space. A backend with the name of a group would otherwise get
		// most of the keys of that group.
		seed := xxhash.Sum64String("group " + name)
		groups[i] = group{name, seed, shares[name], newCandidates(members[name], nil)}
	}
	return groups
}

// open reports whether the group has a backend that isn't passed over.
func (g *group) open(without skip) bool {
	for _, b := range g.backends {
		if !without.has(b) {
			return true
		}
	}
	return false
}

// groupFor returns the group in which a client gets its new home: its own if it has one, in
// which it waits if that is full, or one by the shares. It returns nil if there is none.
func (p *Pool) groupFor(s *snapshot, groups []group, home, key string, without skip) *group {
	own, belongs := s.groupOf(home)
	if !belongs && key == "" && len(without.tried) > 0 {
		own, belongs = without.tried[0].group, true // of the turn that this client has had
	}
	anyRoom := skip{tried: without.tried}
	for i := range groups {
		if g := &groups[i]; belongs && g.name == own && g.open(anyRoom) {
			return g
		}
	}
	g := p.groupByShare(groups, key, without)
	if g == nil && without.full {
		g = p.groupByShare(groups, key, anyRoom)
	}
	return g
}

// groupByShare returns the group to which the key belongs, or the next one in turn, of those
// that have a share.
func (p *Pool) groupByShare(groups []group, key string, without skip) *group {
	h := xxhash.Sum64String(key)
	var best *group
	var highest float64
	sum := 0
	for i := range groups {
		g := &groups[i]
		if g.share == 0 || !g.open(without) {
			continue
		}
		sum += g.share
		if s := score(mix(h^g.seed), float64(g.share)); s > highest || best == nil {
			best, highest = g, s
		}
	}
	if key != "" || best == nil {
		return best
	}
	turn := p.turn(sum)
	for i := range groups {
		g := &groups[i]
		if g.share == 0 || !g.open(without) {
			continue
		}
		if turn -= g.share; turn < 0 {
			return g
		}
	}
	return best // the room of another group was taken meanwhile
}

// turn returns a number from 0 to below n. Its results are those of the golden ratio's
// multiples, which fill any range more evenly than random numbers: of a hundred results one
// or two are in each hundredth.
func (p *Pool) turn(n int) int {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	at, _ := bits.Mul64(p.turns.Add(1)*golden, uint64(n))
	return int(at)
}

// groupOf returns the group of the backend with this ID, which may have been removed.
func (s *snapshot) groupOf(id string) (name string, known bool) {
	if b := s.byID[id]; b != nil {
		return b.group, true
	}
	name, known = s.former[id]
	return name, known
}

// remember keeps the group of a backend that is removed. The caller holds the mutex.
func (p *Pool) remember(b *Backend) {
	former := maps.Clone(p.former)
	if former == nil {
		former = make(map[string]string)
	}
	p.formerOrder = append(slices.DeleteFunc(p.formerOrder, func(id string) bool { return id == b.id }), b.id)
	if len(p.formerOrder) > maxFormer {
		delete(former, p.formerOrder[0])
		p.formerOrder = p.formerOrder[1:]
	}
	former[b.id] = b.group
	p.former = former
}
