// The entry points that libFuzzer calls. KEDGE_FUZZ_TARGET names the target; `--list` prints all of them, each with the
// longest input that makes sense and its seeds. Built by scripts/fuzz.sh alone.
import Glibc
import KedgeCore
import KedgeFuzzTargets

private let target: FuzzTarget = {
    let name = getenv("KEDGE_FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let target = FuzzTarget.named(name) else {
        if name == "--list" {
            for target in FuzzTarget.all {
                print(target.name, target.maximumLength, target.seeds.map(\.hex).joined(separator: " "))
            }
            fflush(nil)
            _exit(0)
        }
        fatalError("KEDGE_FUZZ_TARGET names no target: \(name)")
    }
    return target
}()

/// Called once for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    target.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}
