package token

import (
	"errors"
	"testing"

	"holdfast"
)

func TestParseRef(t *testing.T) {
	const full = "piv:serial=13370000;slot=9c;id=000102030405060708090a0b0c0d0e0f"
	id := keyID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for ref, want := range map[holdfast.Ref]address{
		full: {serial: 13370000, place: "9c", id: id, hasSerial: true, hasID: true},
		"piv:id=000102030405060708090A0B0C0D0E0F;slot=9C": {place: "9c", id: id, hasID: true},
		"piv:slot=82":          {place: "82"},
		"piv:serial=0;slot=95": {place: "95", hasSerial: true},
	} {
		got, err := parseRef(ref)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", ref, got, err, want)
		}
	}
	if ref := canonical(13370000, "9c", id); ref != full {
		t.Errorf("canonical form %s, want %s", ref, full)
	}
	for _, ref := range []holdfast.Ref{
		"", "piv", "piv:", "piv:serial=1", "piv:slot", "piv:slot=", "piv:slot=9b", "piv:slot=f9", "piv:slot=81", "piv:slot=96",
		"piv:slot=9c;slot=9c", "piv:slot=9c;serial=01", "piv:slot=9c;serial=-1", "piv:slot=9c;serial=4294967296",
		"piv:slot=9c;id=00", "piv:slot=9c;pin=123456", "piv:slot=9c;", "tpm:slot=9c", "PIV:slot=9c", "piv:slot=+9",
	} {
		if _, err := parseRef(ref); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: got error %v, want ErrInvalid", ref, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	places := allPlaces()
	if len(places) != 24 || places[0] != "82" || places[19] != "95" || places[20] != "9a" {
		t.Errorf("slots: %v", places)
	}
	for _, place := range places {
		if got, ok := parsePlace(place); !ok || got != place {
			t.Errorf("slot %s is not accepted", place)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{
		"piv:serial=13370000;slot=9c;id=000102030405060708090a0b0c0d0e0f", "piv:slot=9a", "piv:;;=", "pkcs11:x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseRef(holdfast.Ref(s))
		if err != nil {
			if !errors.Is(err, holdfast.ErrInvalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if a.place == "" || !a.hasSerial || !a.hasID {
			return
		}
		again, err := parseRef(canonical(a.serial, a.place, a.id))
		if err != nil || again != a {
			t.Fatalf("%q: %+v became %+v, %v", s, a, again, err)
		}
	})
}
