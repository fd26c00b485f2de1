package hub_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/limpet-go/limpet/bus/hub"
)

// The warning that messages are missing says on which topics: on all of them, or on some, of
// which it names a few.
func TestGapNamesTopics(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		all   bool
		rooms int
		want  string
	}{
		{"all", true, 1, "topics=all "},
		{"two", false, 1, "topics=\"[hub:member:ann hub:room:0]\" "},
		{"many", false, 100, "and 91 more]\" "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var logged strings.Builder
				b := &faulty{}
				h := startHub(t, b, &hub.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
				synctest.Wait()
				b.set(func() { b.away, b.all = true, tt.all })
				m, _ := connect(t, h, "ann")
				for room := range tt.rooms {
					_ = m.Join(t.Context(), fmt.Sprint(room))
				}
				b.back()
				synctest.Wait()
				if got := logged.String(); strings.Count(got, "are missing") != 1 || !strings.Contains(got, tt.want) {
					t.Errorf("logged %q, want %q in it once", got, tt.want)
				}
			})
		})
	}
}
