package browser

import "testing"

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
	if err := p.call("Page.captureScreenshot", params{"format": "png", "captureBeyondViewport": whole}, &picture); err != nil {
		t.Fatalf("screenshot: %v", err)
	}
	return picture.Data
}
