package rebalance

// A Move is a client that leaves a backend for another.
type Move struct{ From, To string }

// Steps are the moves of one replica over time. Each replica moves that part of a backend's
// clients that it has itself, so that all of them together move as many as Plan says without
// talking about it. Only whole clients can move: Steps carries the rest to the next step.
//
// Replicas that have as many clients as each other would all come to a whole client in the
// same step, and move more than are too many. So each is behind by its place among them.
//
// A value may not be used concurrently.
type Steps struct {
	Place    int // of this replica among all, from 0
	Replicas int // how many there are; 0 counts as 1

	due   map[string]float64 // how many clients are to move, by group
	leave map[string]float64 // which of the backends they are to leave
	take  map[string]float64 // and which are to take them
}

// Next returns the clients that this replica is to move in a step. left is that of [Plan].
func (s *Steps) Next(loads []Load, pace float64) (moves []Move, left float64) {
	change, left := Plan(loads, pace)
	if left == 0 {
		s.due, s.leave, s.take = nil, nil, nil
		return nil, 0
	}
	own := s.carry(loads, change)
	has := make(map[string]float64)
	for _, l := range loads {
		has[l.ID] = l.Own
	}
	for name, n := range own {
		s.due[name] += n
		for s.due[name] >= 1-rounding {
			from, to := s.most(loads, name, s.leave), s.most(loads, name, s.take)
			if from == "" || to == "" {
				s.due[name] = 0
				break
			}
			moves = append(moves, Move{from, to})
			s.due[name]--
			s.leave[from]--
			s.take[to]--
			if has[from]--; has[from] < 1 {
				delete(s.leave, from)
			}
		}
	}
	return moves, left
}

// carry adds this replica's part of the change to what the step before has left. It returns
// how many clients that is in each group.
func (s *Steps) carry(loads []Load, change []float64) (own map[string]float64) {
	all := make(map[string]float64) // that move, by group
	own = make(map[string]float64)
	leave, take := make(map[string]float64), make(map[string]float64)
	for i, l := range loads {
		if change[i] < 0 {
			mine := -change[i] * min(1, l.Own/l.Movable)
			all[l.Group] -= change[i]
			own[l.Group] += mine
			if l.Own >= 1 {
				leave[l.ID] = s.leave[l.ID] + mine
			}
		}
	}
	for i, l := range loads {
		if change[i] > 0 && all[l.Group] > 0 {
			take[l.ID] = s.take[l.ID] + change[i]*own[l.Group]/all[l.Group]
		}
	}
	due := make(map[string]float64)
	for name := range own {
		if n, ok := s.due[name]; ok {
			due[name] = n
		} else {
			due[name] = -float64(s.Place) / float64(max(1, s.Replicas))
		}
	}
	s.due, s.leave, s.take = due, leave, take
	return own
}

// most returns the backend of a group for which the most is due, "" if there is none. Among
// equal ones the replicas begin at different places.
func (s *Steps) most(loads []Load, group string, due map[string]float64) (id string) {
	var highest float64
	first := s.Place * len(loads) / max(1, s.Replicas)
	for i := range loads {
		l := loads[(first+i)%len(loads)]
		if n, ok := due[l.ID]; ok && l.Group == group && (id == "" || n > highest) {
			id, highest = l.ID, n
		}
	}
	return id
}
