"""The layers backwards: from the gradient of the loss with respect to a result to those with respect to the arguments.

Read it in the order of `llama.layers.CHAPTERS`. `x_backward` is the gradient of `x`, written out without autograd. Its
first argument `grad` is dloss/dresult, and each gradient dloss/dargument follows by the chain rule:

    dloss/dx_i = sum_j dloss/dy_j · dy_j/dx_i

A gradient has the shape and the dtype of its argument, or the dtype of grad where the argument is not passed. Every sum
is in at least float32. The results carry no graph, and these layers have no derivatives of their own.

What the forward pass computes on its way is computed again. Where a file has a `forward`, that is the layer itself,
which also returns what it has computed; given to the gradient as `kept`, it is not computed again.

`GRADIENTS` in the file of a layer names the arguments whose gradients it returns, in order.
"""
