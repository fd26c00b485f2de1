package browser

import (
	"testing"
	"time"
)

// Prefer sets a preference that style sheets can ask for, such as prefers-color-scheme to
// dark.
func (p *Page) Prefer(t testing.TB, feature, value string) {
	t.Helper()
	if err := p.call("Emulation.setEmulatedMedia",
		params{"features": []params{{"name": feature, "value": value}}}, nil); err != nil {
		t.Fatalf("prefer %s: %s: %v", feature, value, err)
	}
}

// Screenshot returns a picture of the page's window, or of the whole page, as PNG.
func (p *Page) Screenshot(t testing.TB, whole bool) []byte {
	t.Helper()
	var picture struct{ Data []byte }
	err := p.call("Emulation.setScrollbarsHidden", params{"hidden": true}, nil)
	if err == nil {
		err = p.call("Page.captureScreenshot", params{"format": "png", "captureBeyondViewport": whole}, &picture)
	}
	if err != nil {
		t.Fatalf("screenshot: %v", err)
	}
	return picture.Data
}

// Busy returns the processor time that the page's main thread has used so far: in all,
// and for scripts. Unlike times by the clock it doesn't grow with what else runs on the
// machine. The first call begins the measurement.
func (p *Page) Busy(t testing.TB) (all, script time.Duration) {
	t.Helper()
	var got struct {
		Metrics []struct {
			Name  string
			Value float64 // seconds
		}
	}
	err := p.call("Performance.enable", params{"timeDomain": "threadTicks"}, nil)
	if err == nil {
		err = p.call("Performance.getMetrics", nil, &got)
	}
	if err != nil {
		t.Fatalf("measure the page: %v", err)
	}
	for _, m := range got.Metrics {
		switch d := time.Duration(m.Value * float64(time.Second)); m.Name {
		case "TaskDuration":
			all = d
		case "ScriptDuration":
			script = d
		}
	}
	return all, script
}
