// Package rebalance is the arithmetic of moving long-lived clients to the backends that have
// less than their share of them. It has no clock and does nothing by itself: the gateway
// carries out what it says, and a simulation computes with it.
package rebalance

import "math"

// Slack is the part of its share that a backend may lack: a balance that is better than that
// isn't worth a client's reconnecting.
const Slack = 0.05

// A Load is what a backend that is Up has.
type Load struct {
	ID      string
	Group   string // clients move within their group only
	Weight  int
	Clients float64 // at all replicas, those that are on their way to it included
	Movable float64 // of these, those that may be moved
	Own     float64 // of these, those that this replica has
}

// Plan says how the number of each backend's clients is to change in one step; it is below 0
// where clients leave. The sum is 0 in each group. left is how many clients are to move in
// this and all further steps. It is 0 when all groups are in balance, or as near to it as
// they can come.
//
// A backend's share of its group's clients is in proportion to its weight. One that lacks
// too many of them gets that part of the share in a step which pace says, but never more
// than it lacks. Those that have more than their share give them, each in proportion to what
// it can give.
func Plan(loads []Load, pace float64) (change []float64, left float64) {
	change = make([]float64, len(loads))
	groups := make(map[string]*group)
	for _, l := range loads {
		g := groups[l.Group]
		if g == nil {
			g = &group{}
			groups[l.Group] = g
		}
		g.clients += l.Clients
		g.weight += float64(l.Weight)
	}
	for i, l := range loads {
		g := groups[l.Group]
		share := g.share(l)
		switch lack := share - l.Clients; {
		case lack < 0:
			change[i] = -min(-lack, l.Movable)
			g.excess -= change[i]
		case lack > tolerance(share)-rounding:
			change[i] = min(lack, pace*share)
			g.want += change[i]
			g.lack += lack
		}
	}
	for i, l := range loads {
		switch g := groups[l.Group]; {
		case change[i] < 0:
			change[i] *= g.moved() / g.excess
		case change[i] > 0:
			change[i] *= g.moved() / g.want
		}
	}
	for _, g := range groups {
		left += min(g.lack, g.excess)
	}
	return change, left
}

// tolerance is how many clients a backend with this share may lack: Slack, or the standard
// deviation of their number where clients come and go at random, which is more if they are
// few.
func tolerance(share float64) float64 { return max(Slack*share, math.Sqrt(share), 1) }

// rounding is more than what sums of floating point numbers are wrong by here.
const rounding = 1e-6

// A group is the sums over the backends of one group.
type group struct {
	clients, weight float64
	want            float64 // by those that lack clients, in this step
	lack            float64 // of all clients, by the same
	excess          float64 // that the others can give
}

func (g *group) share(l Load) float64 {
	if g.weight == 0 {
		return l.Clients // nobody is to have more than another
	}
	return g.clients * float64(l.Weight) / g.weight
}

// moved is how many clients of the group move in this step.
func (g *group) moved() float64 { return min(g.want, g.excess) }
