"""What ran before in the place of the native core: slow, plain, and held together with it by tests."""
