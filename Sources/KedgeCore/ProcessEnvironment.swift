// The one change that is ever made to our own environment.

import CSystem

/// What may be done to the environment of this process.
package enum ProcessEnvironment {
    /// Removes every variable whose name begins with `prefix`, for libraries of this process and for its children. To
    /// be called while no other thread runs.
    package static func remove(prefix: String) {
        var names: [String] = []
        guard var next = csystem_environment() else { return }
        while let line = next.pointee {
            let name = String(cString: line).prefix { $0 != "=" }
            if name.hasPrefix(prefix) { names.append(String(name)) }
            next += 1
        }
        for name in names { csystem_remove_variable(name) }
    }
}
