package custody

import "context"

// Ready returns nil when calls can be answered: the service is open and its store can be read. A device that is away does
// not count, for it concerns its own keys only.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.CountDIDs(ctx)
	return err
}

// CountDIDs returns how many DIDs were made here.
func (s *Service) CountDIDs(ctx context.Context) (int, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.calls.leave()
	return s.cfg.Store.CountDIDs(ctx)
}
