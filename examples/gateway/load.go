package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// load is what the flags say about how many clients each backend gets.
type load struct {
	shares    map[string]int // of the groups; nil: groups don't matter
	slowStart time.Duration
	hashBound float64
	outliers  bool
	limit     balancer.Limit
}

func (l *load) flags(fs *flag.FlagSet) {
	fs.Func("shares", "how many of the new clients each group of backends gets, as `GROUP=N,…`: with stable=99,canary=1 the backends\nwith group=canary get one in a hundred; a group that isn't named gets none, and clients stay in their group", func(s string) (err error) {
		l.shares, err = parseShares(s)
		return err
	})
	fs.DurationVar(&l.slowStart, "slow-start", 0, "`time` over which a backend that joins, or was down, comes to its whole share of the new clients, as 30s;\n0: at once")
	fs.Float64Var(&l.hashBound, "hash-bound", 0, "with -affinity ip, header or query: a backend that has `N` times its share of the requests in flight, as 1.25,\ngets no more clients by their key, which go to another one meanwhile; 0: no bound")
	fs.BoolVar(&l.outliers, "outliers", false, "a backend that breaks 5 requests in a row, or half of them in 10s, gets no new clients for 30s, and longer each time")
	fs.IntVar(&l.limit.Requests, "backend-requests", 0, "most requests in flight to each backend, `N`, with waiting polls; as many more wait for up to 5s, others get 503;\n0: no limit")
	fs.IntVar(&l.limit.Tunnels, "backend-tunnels", 0, "most WebSockets to each backend, `N`; as many more wait for up to 5s, others get 503; 0: no limit")
}

// options sets what the flags ask for. NewPool finds mistakes in it.
func (l *load) options(opts *balancer.Options) {
	opts.SlowStart, opts.HashBound, opts.Limit = l.slowStart, l.hashBound, &l.limit
	if l.outliers {
		opts.Outliers = &balancer.Outliers{}
	}
}

// parseShares reads GROUP=N,…. The group without a name is that of the backends without one.
func parseShares(list string) (map[string]int, error) {
	shares := make(map[string]int)
	for item := range strings.SplitSeq(list, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(item), "=")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%q: want GROUP=N, as canary=1", item)
		}
		if _, twice := shares[name]; twice {
			return nil, fmt.Errorf("the group %q is there twice", name)
		}
		shares[name] = n
	}
	return shares, nil
}

// share gives the pool the shares. A group that no backend is in is a slip of the pen, unless
// its backends are yet to be found.
func (l *load) share(pool *balancer.Pool, discovers bool) error {
	groups := make(map[string]bool)
	for b := range pool.All() {
		groups[b.Group()] = true
	}
	for name := range l.shares {
		if !groups[name] && !discovers {
			return fmt.Errorf("-shares: no backend is in the group %q: write -backend ID=URL,group=NAME", name)
		}
	}
	if l.shares == nil {
		return nil
	}
	if err := pool.SetShares(l.shares); err != nil {
		return fmt.Errorf("-shares: %w", err)
	}
	return nil
}
