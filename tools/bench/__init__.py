"How long the library takes against what people would run instead, and against what this machine can do"
