package vpiv

func (c *Card) keep() error { return nil }
