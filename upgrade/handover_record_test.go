package upgrade

import "testing"

// The writing to an end is about to be shut down only in a tunnel that is ending. A record that
// says so of another one would crash the process that adopts it.
func TestRecordOfNoEnding(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		record Record
		good   bool
	}{
		{"relaying", Record{}, true},
		{"ending", Record{course: &courseRecord{}, flows: [2]flowRecord{{fin: true}}}, true},
		{"to the backend", Record{flows: [2]flowRecord{toBackend: {fin: true}}}, false},
		{"to the client", Record{flows: [2]flowRecord{toClient: {fin: true}}}, false},
	} {
		if _, err := ParseRecord(tt.record.append(nil)); (err == nil) != tt.good {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
