package handover

import "time"

// SetTimes sets how long c waits: for a step, for a whole Give, and for a step of Take.
func (c *Conn) SetTimes(step, give, take time.Duration) { c.times = times{step, give, take} }

// Forward passes one message on, unless hold, which is told its name, says otherwise.
func Forward(from, to *Conn, hold func(name string) (pass bool)) error {
	m, err := from.read()
	if err != nil {
		return err
	}
	defer m.close()
	if !hold(m.kind.String()) {
		return nil
	}
	return to.send(m)
}
