// Package rebalance is the arithmetic of moving long-lived clients to the backends that have
// less than their share of them. It has no clock and does nothing by itself: the gateway
// carries out what it says, and a simulation computes with it.
package rebalance

// Slack is the part of its share that a backend may lack: a balance that is better than that
// isn't worth a client's reconnecting.
const Slack = 0.05

// A Load is what a backend that is Up has.
type Load struct {
	ID      string
	Group   string // clients move within their group only
	Weight  int
	Clients float64 // at all replicas, those that are on their way to it included
	Own     float64 // that this replica may move
}

// Plan says how the number of each backend's clients is to change in one step, by which
// fewer than 0 leave. The sum is 0 in each group. left is how many clients are to move in this
// and all further steps; it is 0 when all groups are in balance.
//
// A backend's share of its group's clients is in proportion to its weight. One that lacks
// more than Slack of its share, and at least a whole client, gets that part of the share in a
// step which pace says, but never more than it lacks. Those that have more than their share
// give them, each in proportion to what it has too much.
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
			change[i] = lack
			g.excess -= lack
		case lack > Slack*share && lack > 1-rounding:
			change[i] = min(lack, pace*share)
			g.want += change[i]
			left += lack
		}
	}
	for i, l := range loads {
		switch g := groups[l.Group]; {
		case change[i] < 0 && g.excess > 0:
			change[i] *= g.moved() / g.excess
		case change[i] > 0:
			change[i] *= g.moved() / g.want
		}
	}
	return change, left
}

// rounding is more than what sums of floating point numbers are wrong by here.
const rounding = 1e-6

// A group is the sums over the backends of one group.
type group struct {
	clients, weight float64
	want            float64 // by those that lack clients, in this step
	excess          float64 // of those that have too many
}

func (g *group) share(l Load) float64 {
	if g.weight == 0 {
		return l.Clients // nobody is to have more than another
	}
	return g.clients * float64(l.Weight) / g.weight
}

// moved is how many clients of the group move in this step.
func (g *group) moved() float64 { return min(g.want, g.excess) }
