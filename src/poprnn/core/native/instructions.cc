// One instruction set's functions; the compiler's options say which.
#include "normals.h"
#include "steps.h"
#include "table.h"

namespace INSTRUCTIONS {
extern const Table table;
const Table table = {pack, forward, backward, add_outer, normals};
}  // namespace INSTRUCTIONS
