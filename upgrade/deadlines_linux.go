package upgrade

import (
	"container/heap"
	"time"
)

// deadlines are the endings of a loop's tunnels that have a deadline, as a heap with
// the first deadline first.
type deadlines []*ending

// set has the tunnel of e checked at a time, or not at all if that is 0.
func (d *deadlines) set(e *ending, at time.Duration) {
	old := e.at
	e.at = at
	switch {
	case at == old:
	case old == 0:
		heap.Push(d, e)
	case at == 0:
		heap.Remove(d, e.index)
	default:
		heap.Fix(d, e.index)
	}
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *deadlines) Push(x any) {
	e := x.(*ending)
	e.index = len(*d)
	*d = append(*d, e)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return e
}
