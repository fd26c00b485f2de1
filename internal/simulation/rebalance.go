package main

// rebalance moves sessions from the backends that have more than their share to those that
// have less, at most this fraction of a share to each, and returns how many.
func rebalance(n []float64, up []bool, fraction float64) (moved float64) {
	var sum, count float64
	for b := range n {
		if up[b] {
			sum += n[b]
			count++
		}
	}
	share := sum / count
	var want, excess float64
	for b := range n {
		if !up[b] {
			continue
		}
		if n[b] < share {
			want += min(share-n[b], fraction*share)
		} else {
			excess += n[b] - share
		}
	}
	moved = min(want, excess)
	if moved == 0 {
		return 0
	}
	for b := range n {
		switch {
		case !up[b]:
		case n[b] < share:
			n[b] += min(share-n[b], fraction*share) * moved / want
		default:
			n[b] -= (n[b] - share) * moved / excess
		}
	}
	return moved
}
