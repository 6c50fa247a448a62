// Raw views of arrays with typed throws, which the standard library's `withUnsafeBytes` of Array does not have yet.

extension Array<UInt8> {
    /// Calls `body` with the array's bytes, which are valid only until it returns.
    package func withBytes<Result, Failure>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeBufferPointer { buffer throws(Failure) in try body(UnsafeRawBufferPointer(buffer)) }
    }

    /// Calls `body` with the array's bytes for writing; they are valid only until it returns.
    package mutating func withMutableBytes<Result, Failure>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeMutableBufferPointer { buffer throws(Failure) in
            try body(UnsafeMutableRawBufferPointer(buffer))
        }
    }
}
